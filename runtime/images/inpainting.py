"""All that inpainting takes from a picture and its mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdxl_trt.runtime.images.masks import latent_mask, masked_pixels, prepare_mask
from sdxl_trt.runtime.images.opening import check_same_size
from sdxl_trt.runtime.images.region import Box, crop_region, overlay
from sdxl_trt.runtime.images.resizing import Pair, preprocess


@dataclass(frozen=True, kw_only=True, eq=False)
class Inpainting:
    """A picture and its mask, ready for the VAE and the denoising loop."""

    pixels: NDArray[np.float32]
    """[3, H, W], −1 to 1: for the VAE's encoder."""
    masked_pixels: NDArray[np.float32]
    """[3, H, W]: `pixels` with grey where it is painted anew; for the VAE's encoder and a UNet of 9 channels."""
    mask: NDArray[np.float32]
    """[1, h, w], 0 to 1: 1 is painted anew."""
    image: Image.Image
    """RGB, as it came."""
    drawn: Image.Image
    """The mask, of the size of `image`."""
    region: Box
    """The part of `image` that was taken."""

    def paste(self, picture: Image.Image) -> Image.Image:
        """A result in its place: RGB of the size of `image`, whose pixels are kept exactly where the mask is black."""
        return overlay(picture, self.image, self.drawn, self.region)


def prepare_inpainting(
    image: Image.Image, mask: Image.Image, size: Pair, *, padding: int | None = None, soft: bool = False
) -> Inpainting:
    """Check a mask against its picture, and make of both what a model takes.

    Args:
        image: RGB, from `open_image`.
        mask: '1', L or RGB, from `open_mask` and `edit_mask`.
        size: (width, height) of the picture to make, multiples of 8.
        padding: work only on the mask and so many pixels round it, 0 or more; None: on the whole picture. The former
            always wants `paste`; for the latter diffusers leaves it out, and stable-diffusion-webui does not.
        soft: see `prepare_mask`.

    Raises:
        ImageError: the mask has another size than the picture, or leaves nothing to paint.
    """
    check_same_size(image, mask)
    region, mode, part, part_mask = (0, 0, *image.size), "default", image, mask
    if padding is not None:
        region, mode = crop_region(mask, size, padding), "fill"
        part, part_mask = image.crop(region), mask.crop(region)
    pixels = preprocess(part, size, mode)
    prepared = prepare_mask(part_mask, size, soft=soft, mode=mode)
    return Inpainting(
        pixels=pixels,
        masked_pixels=masked_pixels(pixels, prepared),
        mask=latent_mask(prepared),
        image=image,
        drawn=mask,
        region=region,
    )
