"""Pictures and masks of img2img, as A1111 prepares them (modules/processing.py and masking.py of its 1.10)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image, ImageFilter, ImageOps

from sdxl_trt.runtime.images.masks import edit_mask
from sdxl_trt.runtime.images.opening import open_image, open_mask
from sdxl_trt.runtime.images.region import overlay
from sdxl_trt.runtime.images.resizing import resize
from sdxl_trt.runtime.serve.http.a1111_models import ImageToImage
from sdxl_trt.runtime.serve.http.errors import HttpError
from sdxl_trt.runtime.serve.http.pictures import check_pixels

_RESIZES: Final = ("default", "crop", "fill")
_BLURS: Final = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))
"""Radii in pixels, and how often each is laid over the one before: from far away to the very edge."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """What a request starts from."""

    settings: dict[str, Any]
    """Of the request."""
    paste: Callable[[Image.Image], Image.Image] | None
    """Keeps what the mask keeps, pixel for pixel; None where nothing is kept, or the runtime does so itself."""


def picture_bytes(name: str, text: str) -> bytes:
    """The bytes of a picture that was sent as base64 or data URL. Any other URL, and a path, is no base64.

    Args:
        name: of the field.
        text: that was sent.

    Raises:
        HttpError: neither.
    """
    kind, separator, data = text.partition(";base64,")
    encoded = data if separator and kind.startswith("data:image/") else text
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise HttpError(
            422,
            f"{name} holds no picture",
            code="invalid_image",
            param=name,
            got=f"{text!r:.40}: {error}",
            expected="a file as base64, or as data:image/png;base64,…; URLs and paths are never opened",
            fix="send the file itself",
        ) from error


def start_of(body: ImageToImage) -> Start:
    """Open and prepare what a body starts from.

    Args:
        body: that was checked; its size is one that the engines take.

    Raises:
        ImageError: a picture or mask that cannot be used.
        HttpError: no picture at all.
    """
    size, how = (body.width, body.height), _RESIZES[body.resize_mode]
    image = open_image(_checked_bytes("init_images", body.init_images[0]))
    if body.mask is None:
        return Start(settings={"image": resize(image, size, how), "strength": body.denoising_strength}, paste=None)
    mask = open_mask(_checked_bytes("mask", body.mask))
    if not body.inpaint_full_res:
        image, mask = resize(image, size, how), resize(mask, size, how)
    drawn = edit_mask(mask, invert=bool(body.inpainting_mask_invert), blur=body.blur).convert("L")
    settings = {
        "image": image if body.inpainting_fill or drawn.size != image.size else filled(image, drawn),
        "mask": mask,
        "mask_blur": body.blur,
        "mask_invert": bool(body.inpainting_mask_invert),
        "mask_soft": not body.mask_round,
        "mask_padding": body.inpaint_full_res_padding if body.inpaint_full_res else None,
        "strength": body.denoising_strength,
    }
    return Start(settings=settings, paste=None if body.inpaint_full_res else _pasting(image, drawn))


def filled(image: Image.Image, mask: Image.Image) -> Image.Image:
    """A picture whose masked part has the colours of what is around it.

    What is kept is blurred by less and less, and each is laid over the one before.

    Args:
        image: RGB.
        mask: L, of the same size.
    """
    kept = Image.new("RGBa", image.size)
    kept.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    result = Image.new("RGBA", image.size)
    for radius, times in _BLURS:
        layer = kept.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            result.alpha_composite(layer)
    return result.convert("RGB")


def _checked_bytes(name: str, text: str) -> bytes:
    data = picture_bytes(name, text)
    check_pixels(data, name)
    return data


def _pasting(image: Image.Image, mask: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """As A1111's overlay: all of the new picture where the mask is half white or more, mixed to where it is black."""
    edge = mask.point([min(255, 2 * shade) for shade in range(256)])
    return lambda picture: overlay(picture, image, edge, (0, 0, *image.size))
