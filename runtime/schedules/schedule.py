"""A schedule: the noise levels of one run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.levels import Level, Mix, Prediction
from sdxl_trt.runtime.schedules.conversions import sigmas_to_timesteps

Settings = Mapping[str, Any]
"""Every option of a scheduler, by diffusers' name, checked."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """The noise levels of one run, from pure noise down, and what a recurrence must know to walk them."""

    timesteps: NDArray[np.float64]
    """[n], what the UNet is told at the beginning of each step."""
    sigmas: NDArray[np.float64]
    """[n + 1], noise per unit of signal, σ = √((1 − ᾱ)/ᾱ); the last is where the run ends. [0] where a sampler looks
    levels up by timestep instead (`alpha_bars`)."""
    steps: int
    """As asked for; `timesteps` may be more (trailing spacing, PNDM)."""
    initial_scale: float
    """Standard deviation of the starting sample (diffusers' init_noise_sigma)."""
    settings: Settings
    alpha_bars: NDArray[np.float64]
    """[num_train_timesteps], ᾱ of every training timestep; [0] where the model has none (EDM)."""
    preserving: bool
    """Samples are α · x₀ + σ · n with α² + σ² = 1, as most solvers have them; else x₀ + σ · n."""
    begin: int = 0
    """The first step to do."""

    def __post_init__(self) -> None:
        """A schedule is shared by recordings, and none of them may change it."""
        for array in (self.timesteps, self.sigmas, self.alpha_bars):
            array.setflags(write=False)

    @property
    def prediction(self) -> Prediction:
        """What the network gives."""
        prediction: Prediction = self.settings["prediction_type"]
        return prediction

    @property
    def indices(self) -> range:
        """Of the steps to do."""
        return range(self.begin, len(self.timesteps))

    def span(self, index: int) -> tuple[float, float]:
        """σ at the beginning and at the end of a step."""
        return float(self.sigmas[index]), float(self.sigmas[index + 1])

    def mix(self, index: int) -> Mix:
        """The level at the beginning of a step; of the index after the last, where the run ends."""
        sigma = float(self.sigmas[index])
        if not self.preserving:
            return Mix(1.0, sigma)
        alpha = 1 / math.hypot(1.0, sigma)
        return Mix(alpha, sigma * alpha)

    def level(self, index: int) -> Level:
        """The same, with how the network denoises there."""
        return self._level(float(self.timesteps[index]), self.mix(index))

    def level_of_sigma(self, sigma: float) -> Level:
        """A level between steps, at the timestep of that σ."""
        (timestep,) = sigmas_to_timesteps(np.array([sigma]), np.sqrt((1 - self.alpha_bars) / self.alpha_bars))
        return self._level(float(timestep), Mix(1.0, sigma))

    def mix_of_timestep(self, timestep: float) -> Mix:
        """The level of a training timestep; of one below 0, the level after the last step."""
        alpha_bar = float(self.alpha_bars[int(timestep)]) if timestep >= 0 else self._final_alpha_bar
        return Mix(math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar))

    def level_of_timestep(self, timestep: float) -> Level:
        """The same, with how the network denoises there."""
        return self._level(float(timestep), self.mix_of_timestep(timestep))

    @property
    def _final_alpha_bar(self) -> float:
        return 1.0 if self.settings["set_alpha_to_one"] else float(self.alpha_bars[0])

    def _level(self, timestep: float, mix: Mix) -> Level:
        if self.settings["sigma_data"] is None:
            return Level.make(self.prediction, timestep=timestep, image=mix.image, noise=mix.noise)
        return Level.edm(self.prediction, timestep=timestep, noise=mix.noise, data=self.settings["sigma_data"])
