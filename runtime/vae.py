"""The VAE's two engines: latents to pixels, and pixels to moments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.device import Device
from sdxl_trt.runtime.engine import Axes, Caller, Engine
from sdxl_trt.runtime.images.latents import scale_latents
from sdxl_trt.runtime.images.preview import SDXL_FACTORS, PreviewFactors, colour_chart, fit_factors
from sdxl_trt.runtime.tiling import Tiling, choose_tile
from sdxl_trt.spec import LATENT_SCALE, Profile, VaeSpec
from sdxl_trt.spec.graphs import LATENT_CHANNELS

SDXL_SCALING = 0.13025
"""Of SDXL 1.0's VAE, and of none of another latent space that is known."""
_CHART = 256
"""Edge in pixels of the picture that preview factors are fitted to, where engines take it."""


class Vae:
    """One at a time: the VAE needs more memory than the UNet, and gains nothing from a batch.

    Args:
        spec: its scales.
        profile: the sizes that its engines take.
        decoder: its engine.
        open_encoder: opens the other, once it is needed.
        device: where they run.
    """

    def __init__(
        self, spec: VaeSpec, profile: Profile, decoder: Engine, open_encoder: Callable[[], Engine], device: Device
    ) -> None:
        self._spec, self._profile, self._device = spec, profile, device
        self._decode, self._open_encoder = Caller(decoder, device), open_encoder
        self._encode: Caller | None = None
        self._factors: PreviewFactors | None = None

    def decode(self, latents: NDArray[np.float32], tile: int | None = None) -> NDArray[np.float32]:
        """Latents [4, h, w] as the UNet has them to pixels [3, 8·h, 8·w], about −1 to 1.

        Args:
            latents: of one picture.
            tile: edge of tiles in pixels; None: all at once.

        Raises:
            RunError: the engine failed.
        """

        def run(part: NDArray[np.float32]) -> NDArray[np.float32]:
            image: NDArray[np.float32] = self._decode(_axes(*part.shape[1:]), latents=part[None])["image"][0]
            return image

        return self._tiling(tile).apply(run, latents, read=1, written=LATENT_SCALE) if tile else run(latents)

    def moments(self, pixels: NDArray[np.float32], tile: int | None = None) -> NDArray[np.float32]:
        """Pixels [3, H, W], −1 to 1, to means and logarithms of variances [8, h, w] of the VAE's own latents.

        Args:
            pixels: of one picture.
            tile: edge of tiles in pixels; None: all at once.

        Raises:
            BundleError: the encoder cannot be opened.
            RunError: the engine failed.
        """

        def run(part: NDArray[np.float32]) -> NDArray[np.float32]:
            axes = _axes(*(edge // LATENT_SCALE for edge in part.shape[1:]))
            moments: NDArray[np.float32] = self._encoder()(axes, image=part[None])["moments"][0]
            return moments

        return self._tiling(tile).apply(run, pixels, read=LATENT_SCALE, written=1) if tile else run(pixels)

    def warm_up(self, height: int, width: int) -> None:
        """Prepare decoding and encoding for a size of latents for good, and run each once.

        Raises:
            BundleError: the encoder cannot be opened.
            RunError: an engine failed.
        """
        size = (width * LATENT_SCALE, height * LATENT_SCALE)
        tile = choose_tile("auto", None, size, self._spec, self._profile)
        shapes = self._tiling(tile).shapes(height, width) if tile else {(height, width)}
        for call in (self._decode, self._encoder()):
            for shape in sorted(shapes):
                call.warm_up(_axes(*shape))

    def _tiling(self, tile: int) -> Tiling:
        height, width = (self._profile.axis(name, "vae_decoder").min for name in ("height", "width"))
        return Tiling(edge=tile // LATENT_SCALE, least=(height, width))

    def _encoder(self) -> Caller:
        if self._encode is None:
            self._encode = Caller(self._open_encoder(), self._device)
        return self._encode

    def preview_factors(self) -> PreviewFactors:
        """What previews are computed with: those published for SDXL's VAE; another's are fitted to it once."""
        if self._spec.scaling_factor == SDXL_SCALING and not self._spec.latents_std:
            return SDXL_FACTORS
        if self._factors is None:
            edges = (self._profile.axis(name, "vae_encoder").scaled(LATENT_SCALE) for name in ("width", "height"))
            width, height = (min(_CHART, edge.max) for edge in edges)
            means = self.moments(colour_chart((width, height)))[:LATENT_CHANNELS]
            latents = scale_latents(means, self._spec)
            self._factors = fit_factors(latents[None], self.decode(latents)[None])
        return self._factors


def _axes(height: int, width: int) -> Axes:
    return {"slots": 1, "height": height, "width": width}
