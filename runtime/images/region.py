"""'Only masked': work on the part of a picture round its mask, at full size, and put it back.

Sources: diffusers 0.42, VaeImageProcessor.get_crop_region and apply_overlay, after stable-diffusion-webui's
modules/masking.py.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from sdxl_trt.runtime.images.masks import check_paints
from sdxl_trt.runtime.images.resizing import Pair, resize

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels; right and bottom lie outside."""


def crop_region(mask: Image.Image, size: Pair, padding: int) -> Box:
    """The box round all that is not black in a mask, as near to the wanted shape as the picture allows.

    Args:
        mask: '1', L or RGB, of the picture's size.
        size: (width, height) that the box will be scaled to; only its shape counts.
        padding: pixels of the picture to take in on every side, 0 or more.

    Raises:
        ImageError: the mask is black.
    """
    marked = np.asarray(mask.convert("L")) != 0
    check_paints(marked, "a mask that is black all over")
    left, right = _extent(marked.any(axis=0), padding)
    top, bottom = _extent(marked.any(axis=1), padding)
    shape = size[0] / size[1]
    if (right - left) / (bottom - top) > shape:
        top, bottom = _grown(top, bottom, (right - left) / shape, mask.height)
    else:
        left, right = _grown(left, right, (bottom - top) * shape, mask.width)
    return left, top, right, bottom


def overlay(picture: Image.Image, image: Image.Image, mask: Image.Image, region: Box) -> Image.Image:
    """A result put back into the picture that it was made from: bit for bit VaeImageProcessor.apply_overlay.

    Args:
        picture: the result, RGB, of any size.
        image: what it was made from, RGB.
        mask: '1', L or RGB, of the size of `image`, as drawn and blurred. Where it is black the pixels of `image`
            are kept exactly; where it is white, those of `picture` are taken; between, they are mixed.
        region: where in `image` the result belongs.

    Returns:
        RGB, of the size of `image`.
    """
    left, top, right, bottom = region
    result = Image.new("RGB", image.size)
    result.paste(resize(picture, (right - left, bottom - top), "crop"), (left, top))
    kept = Image.new("RGBa", image.size)
    kept.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask.convert("L")))
    whole = result.convert("RGBA")
    whole.alpha_composite(kept.convert("RGBA"))
    return whole.convert("RGB")


def _extent(marked: np.ndarray[tuple[int], np.dtype[np.bool_]], padding: int) -> tuple[int, int]:
    """(start, end) of what is marked, padded as far as there is room."""
    found = np.flatnonzero(marked)
    return max(int(found[0]) - padding, 0), min(int(found[-1]) + 1 + padding, len(marked))


def _grown(start: int, end: int, wanted: float, limit: int) -> tuple[int, int]:
    """A side made as long as wanted: the same on both ends, shifted where an end would stand out, then cut."""
    growth = int(wanted - (end - start))
    start, end = start - growth // 2, end + growth - growth // 2
    over = max(end - limit, 0)
    start, end = start - over, end - over
    under = max(-start, 0)
    return start + under, min(end + under, limit)
