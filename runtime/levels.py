"""Noise levels: how much of a sample is picture, how much is noise, and how the network denoises there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

Prediction = Literal["epsilon", "v_prediction", "sample"]
"""What the network gives: the noise, the velocity (arXiv 2202.00512, appendix D) or the clean sample."""


class Mix(NamedTuple):
    """A sample as image · x₀ + noise · n, with x₀ a picture's latents and n standard normal noise."""

    image: float
    noise: float


CLEAN = Mix(1.0, 0.0)
NOISE = Mix(0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Level:
    """A noise level, x = image · x₀ + noise · n, and how the network denoises there.

    The network sees scale · x and the timestep; then x̂₀ = x0_input · (scale · x) + x0_output · ε. In the terms of
    Karras et al. 2022 (arXiv 2206.00364), equation 7: c_in = scale, c_skip = x0_input · scale, c_out = x0_output.
    """

    timestep: float
    image: float
    noise: float
    scale: float
    x0_input: float
    x0_output: float

    @classmethod
    def make(cls, prediction: Prediction, *, timestep: float, image: float, noise: float) -> Level:
        """The level of a network trained on u = α · x₀ + σ · n with α² + σ² = 1.

        epsilon: x₀ = (u − σ · ε)/α. v_prediction: x₀ = α · u − σ · v. sample: x₀ is the output itself.
        """
        scale = 1 / math.hypot(image, noise)
        alpha, sigma = image * scale, noise * scale
        if prediction == "epsilon":
            x0_input, x0_output = 1 / alpha, -sigma / alpha
        elif prediction == "v_prediction":
            x0_input, x0_output = alpha, -sigma
        else:
            x0_input, x0_output = 0.0, 1.0
        return cls(timestep=timestep, image=image, noise=noise, scale=scale, x0_input=x0_input, x0_output=x0_output)

    @classmethod
    def edm(cls, prediction: Prediction, *, timestep: float, noise: float, data: float) -> Level:
        """The level x = x₀ + σ · n of a network preconditioned for data of a standard deviation (table 1, EDM).

        The output is c_out's factor: for 'v_prediction' of the other sign (CosXL's, as diffusers has it).
        """
        deviation = math.hypot(noise, data)
        output = noise * data / deviation
        return cls(
            timestep=timestep,
            image=1.0,
            noise=noise,
            scale=1 / deviation,
            x0_input=data**2 / deviation,
            x0_output=-output if prediction == "v_prediction" else output,
        )
