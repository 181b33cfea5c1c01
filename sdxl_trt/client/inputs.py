"""Pictures and masks that a server is sent: always as files' bytes, for it opens no path."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_trt.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

    Source = bytes | Path | Image

MOST_BYTES = 2**28
"""Of a file that is read to be sent; servers take less unless told otherwise."""
_DEEP = ("I", "F")
"""What Pillow's modes of more than 8 bits start with."""


def picture_file(source: Source, kind: str = "picture") -> bytes:
    """A file's bytes.

    Args:
        source: a file, its bytes, or a Pillow image, which becomes a PNG file.
        kind: what it is, for errors.

    Raises:
        ImageError: it cannot be read, or cannot be written as PNG.
    """
    if isinstance(source, bytes):
        return source
    with _errors(kind):
        if not isinstance(source, Path):
            return _png(source)
        with source.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ValueError(f"{source} has more than {MOST_BYTES} bytes")
        return data


def mask_file(source: Source) -> bytes:
    """A mask as servers read it: what is transparent is painted anew.

    Args:
        source: as of `picture_file`. With transparency it is sent as it is; else what is white in it is made
            transparent, so that masks mean what they mean to `Pipeline`.

    Raises:
        ImageError: it cannot be read, or cannot be written as PNG.
    """
    from PIL import Image, ImageOps

    with _errors("mask"):
        image = Image.open(io.BytesIO(picture_file(source, "mask"))) if isinstance(source, bytes | Path) else source
        if image.has_transparency_data:
            return picture_file(source, "mask")
        if image.mode.startswith(_DEEP):
            raise ValueError(f"Pillow's mode {image.mode!r}, in which nothing says which number is white")
        white = ImageOps.exif_transpose(image).convert("L")
        return _png(Image.merge("LA", (Image.new("L", white.size), ImageOps.invert(white))))


def _png(image: Image) -> bytes:
    from PIL import ImageOps

    file = io.BytesIO()
    ImageOps.exif_transpose(image).save(file, "PNG")
    return file.getvalue()


@contextlib.contextmanager
def _errors(kind: str) -> Iterator[None]:
    """Whatever Pillow and the file system raise, in our words."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # Pillow's readers raise anything on damaged files: struct.error, SyntaxError, …
        raise ImageError(
            f"this {kind} cannot be sent",
            got=getattr(error, "strerror", None) or str(error) or type(error).__name__,
            expected=f"a whole picture file of at most {MOST_BYTES} bytes, or a Pillow image that PNG can hold",
            fix="save it anew as PNG, of 8 bits",
        ) from error
