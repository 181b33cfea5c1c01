"""Pictures and masks to put in."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def picture(size: tuple[int, int], mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth colours with noise on top, (width, height)."""
    rng = np.random.default_rng(seed)
    width, height = size
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 4), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse).astype(np.int16) + rng.integers(-30, 31, (height, width, 4))
    layers = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    return layers if mode == "RGBA" else layers.convert("RGB").convert(mode)


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """A file's bytes."""
    file = io.BytesIO()
    image.save(file, format=file_format, **options)
    return file.getvalue()
