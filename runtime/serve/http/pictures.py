"""Pictures as bytes: what clients get, and how its files say that it was made."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from sdxl_trt.errors import ImageError
from sdxl_trt.runtime.described import Origin, describe
from sdxl_trt.runtime.images.opening import FORMATS
from sdxl_trt.runtime.png import Parameters, encode_png
from sdxl_trt.runtime.serve.job import Job

KINDS = ("png", "jpeg", "webp")
"""Of files that pictures are sent as."""
MOST_PIXELS = 4096 * 4096
"""Of a picture that a client sends: to open it takes a quarter of a gigabyte, and many may come at once."""


def encode(image: Image.Image, kind: str, quality: int = 100, parameters: Parameters | None = None) -> bytes:
    """A picture's file.

    Args:
        image: RGB.
        kind: one of `KINDS`.
        quality: 0 to 100, of JPEG and WebP; PNG loses nothing.
        parameters: what it was made from, which a PNG file says; None: that it is not to be said.

    Raises:
        UsageError: the parameters cannot be written, as of `encode_png`.
    """
    if kind == "png" and parameters is not None:
        return encode_png(np.asarray(image), parameters)
    file = io.BytesIO()
    image.save(file, kind.upper(), **({} if kind == "png" else {"quality": quality}))
    return file.getvalue()


def parameters_of(job: Job, index: int) -> Parameters:
    """What one picture of a finished request was made from; of the bundle that made it, whichever is loaded now.

    Args:
        job: that is done.
        index: of the picture.
    """
    first, *others = [draft.expert.loaded for draft in job.drafts]
    origin = Origin(model=first.model, target=first.target.name, refiner=others[0].model if others else None)
    return describe(job.result.result(), index, job.request, origin)


def check_pixels(data: bytes, name: str) -> None:
    """Refuse a picture that is small as a file and would fill the memory, before a pixel of it is decoded.

    Args:
        data: a file's bytes; where they are no picture's, who opens them says so.
        name: of the field that it came in.

    Raises:
        ImageError: it has more than `MOST_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except Exception:  # Pillow's readers raise anything on damaged files
        return
    if width * height > MOST_PIXELS:
        raise ImageError(
            f"{name} is too large",
            got=f"{width}×{height} pixels (width × height)",
            expected=f"at most {MOST_PIXELS / 1e6:.0f} million pixels",
            fix="scale it down: pictures are made at the size that is asked for",
        )
