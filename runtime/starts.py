"""What each picture begins with: noise, an input's latents, and what an inpainting UNet sees beside them.

Draws come in diffusers' order (0.42, pipeline_stable_diffusion_xl_img2img.py and …_inpaint.py, prepare_latents and
prepare_mask_latents): the input's VAE sample, the noise, the masked input's VAE sample; then the steps'. Inpainting
draws the last one with UNets of four channels too, which do not look at it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.images.latents import sample_moments
from sdxl_trt.runtime.inputs import Input
from sdxl_trt.runtime.slots import NoiseSource
from sdxl_trt.runtime.table import Table
from sdxl_trt.spec import ModelSpec
from sdxl_trt.spec.graphs import LATENT_CHANNELS

Encode = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Pixels [3, H, W] to the VAE's moments [8, h, w]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """Of one picture."""

    noise: NDArray[np.float32]
    """[4, h, w], standard normal."""
    image: NDArray[np.float32] | None = None
    """[4, h, w]: the input's latents."""
    begin: NDArray[np.float32] | None = None
    """[4, h, w]: another model's result to start from, instead of the input's latents."""
    mask: NDArray[np.float32] | None = None
    """[1, h, w]: where not 1, the input's latents are put back after each step."""
    extra: NDArray[np.float32] | None = None
    """[5, h, w]: mask and masked input's latents, for an inpainting UNet."""


class Starter:
    """Makes the starts of the pictures of one request; pixels are encoded once for all.

    Args:
        model: its UNet's channels, and its VAE's scales.
        given: what is started from; None: nothing but noise.
        encode: the VAE's encoder.
        table: how image and noise are mixed in the start.
        refined: a refiner goes on with the pictures, and puts back what a mask keeps after each of its steps.
    """

    def __init__(self, model: ModelSpec, given: Input | None, encode: Encode, table: Table, *, refined: bool) -> None:
        self._vae, self._given = model.vae, given or Input()
        self._inpaints = model.unet.channels != LATENT_CHANNELS
        self._adds_noise = table.initial_scale != 0 or self._given.mask is not None
        # An inpainting UNet that starts from noise alone has no use for the input's latents.
        sampled = self._given.pixels is not None and not (self._inpaints and not table.initial_image and not refined)
        self._moments = encode(self._given.pixels) if sampled and self._given.pixels is not None else None
        masked = self._given.masked_pixels
        self._masked_moments = None if masked is None else encode(masked)

    def start(
        self, index: int, source: NoiseSource, shape: tuple[int, ...], noise: NDArray[np.float32] | None
    ) -> Start:
        """The start of one picture.

        Args:
            index: its number.
            source: its generator.
            shape: [4, h, w].
            noise: the caller's own, instead of a draw.
        """
        image = None
        if self._moments is not None:
            image = sample_moments(self._moments, source, self._vae)
        elif self._given.latents is not None:
            image = self._given.latents[min(index, len(self._given.latents) - 1)]
        drawn = self._draw(source, shape) if noise is None else noise
        mask = self._given.mask
        if mask is None or self._masked_moments is None:
            return Start(noise=drawn, image=image)
        masked = sample_moments(self._masked_moments, source, self._vae)
        if not self._inpaints:
            return Start(noise=drawn, image=image, mask=mask)
        return Start(noise=drawn, image=image, extra=np.concatenate([mask, masked]))

    def _draw(self, source: NoiseSource, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The noise; where the start has none in it, it only tells one picture's Brownian path from another's, and the
        generator is not advanced, as in diffusers.
        """
        return (source if self._adds_noise else copy.deepcopy(source)).normal(shape)
