"""Pixels of decoded images, and cheap previews: each latent pixel as a linear map of its four channels.

A preview costs 12 multiplications for each latent pixel, and is an eighth of the picture's size each way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.spec import LATENT_SCALE

_PATCH = 32  # pixels: smaller ones run into one another in the latents, larger ones are few


@dataclass(frozen=True, kw_only=True)
class PreviewFactors:
    """RGB from −1 to 1 = weights · latents (as the UNet has them) + bias."""

    weights: tuple[tuple[float, ...], ...]
    """One (red, green, blue) for each latent channel."""
    bias: tuple[float, ...]
    """(red, green, blue)."""


SDXL_FACTORS = PreviewFactors(
    weights=(
        (0.3651, 0.4232, 0.4341),
        (-0.2533, -0.0042, 0.1068),
        (0.1076, 0.1111, -0.0362),
        (-0.3165, -0.2492, -0.2188),
    ),
    bias=(0.1084, -0.0175, -0.0011),
)
"""Of the VAE that came with SDXL 1.0, as ComfyUI publishes them (comfy/latent_formats.py, class SDXL)."""


def preview(latents: NDArray[np.float32], factors: PreviewFactors = SDXL_FACTORS) -> NDArray[np.uint8]:
    """Roughly what latents show.

    Args:
        latents: [4, h, w] as the UNet has them (scaled); while denoising, the estimate of the finished ones.
        factors: of the model's VAE.

    Returns:
        RGB bytes [h, w, 3].
    """
    weights, bias = np.array(factors.weights, np.float32), np.array(factors.bias, np.float32)
    return to_pixels(np.tensordot(weights, latents, axes=(0, 0)) + bias[:, None, None])


def fit_factors(latents: NDArray[np.float32], images: NDArray[np.float32]) -> PreviewFactors:
    """The factors of any VAE, by least squares, from latents and what its decoder makes of them.

    Args:
        latents: [N, 4, h, w] as the UNet has them (scaled), of a picture of many colours.
        images: [N, 3, 8·h, 8·w] that the decoder gave, −1 to 1.
    """
    count, channels, height, width = latents.shape
    blocks = images.reshape(count, 3, height, LATENT_SCALE, width, LATENT_SCALE).mean(axis=(3, 5), dtype=np.float64)
    seen = np.ones((count * height * width, channels + 1))
    seen[:, :channels] = latents.transpose(0, 2, 3, 1).reshape(-1, channels)
    *weights, bias = np.linalg.lstsq(seen, blocks.transpose(0, 2, 3, 1).reshape(-1, 3), rcond=None)[0].tolist()
    return PreviewFactors(weights=tuple(map(tuple, weights)), bias=tuple(bias))


def colour_chart(size: tuple[int, int]) -> NDArray[np.float32]:
    """A picture to fit factors by: patches of white, black, grey and the full colours, the same every time.

    Args:
        size: (width, height) in pixels; at least 256 each way, for 64 patches.

    Returns:
        float32 [3, height, width], −1 to 1: encode it, decode the means, and fit.
    """
    width, height = size
    colours = np.random.RandomState(0).choice((-1, 0, 1), (3, -(-height // _PATCH), -(-width // _PATCH)))
    chart = colours.astype(np.float32).repeat(_PATCH, axis=1).repeat(_PATCH, axis=2)
    return np.ascontiguousarray(chart[:, :height, :width])


def to_pixels(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A decoded image [3, H, W], −1 to 1, as RGB bytes [H, W, 3], rounded as diffusers' VaeImageProcessor does."""
    unit = np.clip(image / 2 + 0.5, 0, 1).transpose(1, 2, 0)
    return np.ascontiguousarray((unit * 255).round().astype(np.uint8))
