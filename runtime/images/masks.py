"""Masks: 1 is painted anew, 0 is kept. As diffusers' StableDiffusionXLInpaintPipeline has them (diffusers 0.42)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from sdxl_trt.errors import ImageError
from sdxl_trt.runtime.images.resizing import Pair, grey
from sdxl_trt.spec import LATENT_SCALE


def edit_mask(mask: Image.Image, *, invert: bool = False, blur: float = 0.0) -> Image.Image:
    """A mask turned round, then blurred.

    Args:
        mask: '1', L or RGB.
        invert: paint anew what is black.
        blur: standard deviation of a Gaussian in pixels of the mask, 0 or more (VaeImageProcessor.blur's
            `blur_factor`). It softens the seam where a result is pasted back; what is painted anew is still cut at
            0.5, unless the mask is soft.

    Returns:
        L, or the mask itself where nothing is asked for.
    """
    if invert:
        mask = ImageOps.invert(mask.convert("L"))
    return mask.convert("L").filter(ImageFilter.GaussianBlur(blur)) if blur else mask


def prepare_mask(mask: Image.Image, size: Pair, *, soft: bool = False, mode: str = "default") -> NDArray[np.float32]:
    """A mask at the size of the picture to make: bit for bit the pipeline's `mask_processor`, unless it is soft.

    Args:
        mask: '1', L or RGB, of any size.
        size: (width, height), multiples of 8.
        soft: keep shades of grey, so that the picture is blended; an extension. Else cut at 0.5.
        mode: see `resize`.

    Returns:
        float32 [1, height, width], 0 to 1; 0 or 1 where not soft.

    Raises:
        ImageError: nothing would be painted anew.
    """
    shades = grey(mask, size, mode)
    prepared = shades if soft else (shades >= 0.5).astype(np.float32)
    check_paints(prepared, f"no pixel of at least half white (the whitest of {size[0]}×{size[1]}: {shades.max():.3f})")
    return prepared


def latent_mask(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """A prepared mask [1, H, W] for latents, [1, h, w]: the top left of every 8×8 pixels.

    Equal to `torch.nn.functional.interpolate` ('nearest'), which diffusers' prepare_mask_latents calls.

    Raises:
        ImageError: nothing would be painted anew, since the mask is thinner than a latent pixel.
    """
    small = np.ascontiguousarray(mask[:, ::LATENT_SCALE, ::LATENT_SCALE])
    check_paints(small, f"white thinner than {LATENT_SCALE} pixels, which the latents miss")
    return small


def masked_pixels(pixels: NDArray[np.float32], mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """The picture [3, H, W] with grey where the mask [1, H, W] is 0.5 or more: what 9-channel UNets are shown."""
    return pixels * (mask < 0.5)


def check_paints(mask: NDArray[Any], got: str) -> None:
    """Raises ImageError, saying what was got, where a mask is black all over."""
    if not mask.any():
        raise ImageError(
            "the mask leaves nothing to paint",
            got=got,
            expected="white where the picture is to be painted anew, black where it is kept",
            fix="invert the mask if black is meant; enlarge what is white if it is tiny, or work on it alone (padding)",
        )
