"""Opening pictures and masks from outside: any size, mode, rotation and alpha, or one clear error.

Files are hostile. Only formats that browsers and cameras write are read: TIFF, PSD, EPS and the rest bring readers
with long histories of holes. The size is read from the header and checked before a pixel is decoded. Text never
names a file: what a client sends can only ever be bytes.

Colour profiles are ignored, as in diffusers and stable-diffusion-webui.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from sdxl_trt.errors import ImageError

Source = Path | bytes | Image.Image | NDArray[Any]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MOST_PIXELS = 8192 * 8192
"""Above full-frame cameras (61 million); takes 0.9 GB of memory to open. No SDXL picture needs more."""

_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def open_image(source: Source) -> Image.Image:
    """A picture as RGB, upright.

    The orientation that EXIF tells is applied. Transparent parts become white, as in stable-diffusion-webui
    (diffusers drops alpha, which shows colours that nobody has seen). Of an animation the first frame is taken.
    16-bit grey is scaled to 8 bits.

    Args:
        source: a file, a file's bytes, a Pillow image, or an array: uint8 [H, W], [H, W, 3] or [H, W, 4], or bool
            [H, W].

    Raises:
        ImageError: it is none of these, cannot be decoded, or has no pixels or more than `MOST_PIXELS`.
    """
    return _open(source, "picture", _on_white)


def open_mask(source: Source) -> Image.Image:
    """A mask as '1', L or RGB, upright: white is painted anew, black is kept.

    Its mode stays as it is where that matters to `resize`; else as `open_image`.

    Raises:
        ImageError: as `open_image`; or it has transparent parts, which some programs keep and others paint anew.
    """
    return _open(source, "mask", _opaque)


def open_transparency(source: Source) -> Image.Image:
    """A mask as L, drawn by what is transparent: that is painted anew, what is opaque is kept (OpenAI's images API).

    Raises:
        ImageError: as `open_image`; or it has no transparency.
    """
    return _open(source, "mask", _transparent)


def check_same_size(image: Image.Image, mask: Image.Image) -> None:
    """Raises ImageError where a mask does not fit its picture."""
    if mask.size != image.size:
        raise ImageError(
            "the mask has another size than the picture",
            got=f"a mask of {_by(mask.size)}, a picture of {_by(image.size)} pixels (width × height, upright)",
            expected="the same size",
            fix=f"scale the mask to {_by(image.size)}, or draw it on the picture itself",
        )


def _open(source: Source, kind: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    try:
        with _opened(source, kind) as image:
            _check(image, kind)
            upright = ImageOps.exif_transpose(image)  # always a copy
            return convert(_eight_bit(upright) if upright.mode in _SIXTEEN_BIT else upright)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise _unusable(kind, "another format, damage at its start, or no pixels") from error
    except Exception as error:  # Pillow's readers raise anything on damaged files: struct.error, SyntaxError, …
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _unusable(kind, text) from error


@contextmanager
def _opened(source: Source, kind: str) -> Iterator[Image.Image]:
    """An image that may not be decoded yet."""
    if isinstance(source, Image.Image):
        yield source
    elif isinstance(source, np.ndarray):
        yield _from_array(source, kind)
    elif isinstance(source, Path | bytes):
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
            yield Image.open(file, formats=FORMATS)
    else:
        raise _unusable(kind, f"{type(source).__name__}", "pass a pathlib.Path, bytes, a Pillow image or a numpy array")


def _from_array(array: NDArray[Any], kind: str) -> Image.Image:
    if array.dtype == np.bool_ and array.ndim == 2:
        array = array * np.uint8(255)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,), (4,)):
        shapes = "uint8 [H, W], [H, W, 3] or [H, W, 4], or bool [H, W]"
        raise _unusable(kind, f"an array {array.dtype} {list(array.shape)}", f"convert it to {shapes}")
    return Image.fromarray(array) if array.size else Image.new("RGB", array.shape[1::-1])


def _check(image: Image.Image, kind: str) -> None:
    if not 0 < image.width * image.height <= MOST_PIXELS:
        raise _unusable(kind, f"{_by(image.size)} pixels (width × height)")
    if image.mode not in _EIGHT_BIT + _SIXTEEN_BIT:
        fix = "scale it to 0 … 255 and convert it to mode 'L' or 'RGB'"
        raise _unusable(kind, f"Pillow's mode {image.mode!r}, in which nothing says which number is white", fix)


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey as L, rounded (Pillow's own conversion clips at 255)."""
    return Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return _as(image, "RGB")
    layer = _as(image, "RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(layer, mask=layer.getchannel("A"))
    return white


def _opaque(image: Image.Image) -> Image.Image:
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise ImageError(
            "the mask has transparent parts",
            got="transparency, which some programs keep and others paint anew",
            expected="an opaque mask: white is painted anew, black is kept",
            fix="take image.getchannel('A') as the mask to paint the opaque parts anew; inverted, the transparent ones",
        )
    return image if image.mode in ("1", "L") else _as(image, "RGB")


def _transparent(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        raise ImageError(
            "the mask has no transparency",
            got=f"Pillow's mode {image.mode!r}",
            expected="transparent where the picture is painted anew, opaque where it is kept",
            fix="save it as PNG with an alpha channel",
        )
    return ImageOps.invert(_as(image, "RGBA").getchannel("A"))


def _as(image: Image.Image, mode: str) -> Image.Image:
    """An image in a mode; no copy where it has it already."""
    return image if image.mode == mode else image.convert(mode)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"


def _unusable(kind: str, got: str, fix: str = "save it anew as PNG, scaled down where it is too large") -> ImageError:
    return ImageError(
        f"this {kind} cannot be used",
        got=got,
        expected=f"a whole {', '.join(FORMATS)} file, or a Pillow image or an array of 8 bits, of 1 pixel to "
        f"{MOST_PIXELS / 1e6:.0f} million",
        fix=fix,
    )
