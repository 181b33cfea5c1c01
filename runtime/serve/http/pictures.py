"""Pictures as bytes: what clients get, and how its files say that it was made."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from sdxl_trt.runtime.described import Origin, describe
from sdxl_trt.runtime.png import Parameters, encode_png
from sdxl_trt.runtime.serve.job import Job

KINDS = ("png", "jpeg", "webp")
"""Of files that pictures are sent as."""


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
