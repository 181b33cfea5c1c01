"""Pictures of any size as the VAE takes them: diffusers' VaeImageProcessor (diffusers 0.42, image_processor.py)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdxl_trt.errors import ImageError, UnknownName
from sdxl_trt.runtime.images.opening import MOST_PIXELS
from sdxl_trt.spec import LATENT_SCALE

Pair = tuple[int, int]

_LANCZOS = Image.Resampling.LANCZOS


def default_size(image: Image.Image) -> Pair:
    """(width, height) to make pictures in where none is asked for: the picture's own, down to multiples of 8.

    Raises:
        ImageError: nothing is left.
    """
    width, height = (edge - edge % LATENT_SCALE for edge in image.size)
    if not width or not height:
        raise ImageError(
            "the picture is too small to take its size from",
            got=f"{image.width}×{image.height} pixels (width × height)",
            expected=f"at least {LATENT_SCALE} each way",
            fix="ask for a size, such as size=(1024, 1024)",
        )
    return width, height


def preprocess(image: Image.Image, size: Pair, mode: str = "default") -> NDArray[np.float32]:
    """What the VAE's encoder reads: bit for bit VaeImageProcessor.preprocess.

    Args:
        image: RGB, of any size.
        size: (width, height), multiples of 8.
        mode: see `resize`.

    Returns:
        float32 [3, height, width], −1 to 1.
    """
    pixels = _unit(resize(image, size, mode).convert("RGB"))
    return np.ascontiguousarray(2 * pixels.transpose(2, 0, 1) - 1)


def grey(image: Image.Image, size: Pair, mode: str) -> NDArray[np.float32]:
    """A picture's luma, float32 [1, height, width], 0 to 1."""
    return _unit(resize(image, size, mode).convert("L"))[None]


def resize(image: Image.Image, size: Pair, mode: str = "default") -> Image.Image:
    """An image scaled to (width, height) by Lanczos (mode '1': by the nearest pixel).

    Args:
        image: RGB, L or '1'.
        size: (width, height).
        mode: 'default' stretches. 'fill' keeps the shape, and repeats the edges where the image does not reach;
            'crop' keeps the shape, and cuts off what stands out. These two give RGB.

    Raises:
        UnknownName: another mode.
    """
    if mode not in RESIZES:
        raise UnknownName("resize mode", mode, RESIZES)
    return RESIZES[mode](image, size)


def _stretch(image: Image.Image, size: Pair) -> Image.Image:
    return image.resize(size, _LANCZOS)


def _fill(image: Image.Image, size: Pair) -> Image.Image:
    canvas, scaled, (left, top) = _centred(image, size, by_width=_ratio(size) < _ratio(image.size))
    (width, height), (right, bottom) = size, scaled.size
    if top > 0:
        canvas.paste(scaled.resize((width, top), box=(0, 0, width, 0)), (0, 0))
        canvas.paste(scaled.resize((width, top), box=(0, bottom, width, bottom)), (0, top + bottom))
    elif left > 0:
        canvas.paste(scaled.resize((left, height), box=(0, 0, 0, height)), (0, 0))
        canvas.paste(scaled.resize((left, height), box=(right, 0, right, height)), (left + right, 0))
    return canvas


def _crop(image: Image.Image, size: Pair) -> Image.Image:
    by_width = _ratio(size) > _ratio(image.size)
    scaled = _scaled(image.size, size, by_width=by_width)
    if scaled[0] * scaled[1] <= MOST_PIXELS:
        return _centred(image, size, by_width=by_width)[0]
    # So long and narrow that it would fill the memory: cut off first, which Pillow rounds in another order.
    left, top = (-edge for edge in _offset(scaled, size))
    across, down = image.width / scaled[0], image.height / scaled[1]
    box = (left * across, top * down, (left + size[0]) * across, (top + size[1]) * down)
    return image.resize(size, _LANCZOS, box=box).convert("RGB")


RESIZES: dict[str, Callable[[Image.Image, Pair], Image.Image]] = {"default": _stretch, "fill": _fill, "crop": _crop}


def _centred(image: Image.Image, size: Pair, *, by_width: bool) -> tuple[Image.Image, Image.Image, Pair]:
    """(canvas, the image scaled to the canvas's width or height, where on the canvas it lies)."""
    scaled = image.resize(_scaled(image.size, size, by_width=by_width), _LANCZOS)
    canvas = Image.new("RGB", size)
    offset = _offset(scaled.size, size)
    canvas.paste(scaled, offset)
    return canvas, scaled, offset


def _scaled(source: Pair, size: Pair, *, by_width: bool) -> Pair:
    """An image's size when it is as wide, or as high, as what it goes into; at least one pixel."""
    if by_width:
        return size[0], max(1, source[1] * size[0] // source[0])
    return max(1, source[0] * size[1] // source[1]), size[1]


def _offset(scaled: Pair, size: Pair) -> Pair:
    """Where something scaled lies in the middle of a canvas."""
    return size[0] // 2 - scaled[0] // 2, size[1] // 2 - scaled[1] // 2


def _ratio(size: Pair) -> float:
    return size[0] / size[1]


def _unit(image: Image.Image) -> NDArray[np.float32]:
    """Pixels [height, width, …], 0 to 1."""
    return np.asarray(image).astype(np.float32) / np.float32(255)
