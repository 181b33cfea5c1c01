"""model-signing, which takes paths: it is given memory, so that what it reads is what was read before."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdxl_trt.libraries import require


def model_signing() -> Any:
    """The library, imported: 570 modules, 48 MB and most of a second.

    Raises:
        FlavourUnavailable: it is not installed.
    """
    return require("model_signing", "sign bundles and check signatures")


@contextlib.contextmanager
def in_memory(content: bytes = b"") -> Iterator[Path]:
    """A path to bytes that are in no file system, which may be read-only, and that nobody else can alter."""
    descriptor = os.memfd_create("sdxl-trt")
    try:
        path = Path(f"/proc/self/fd/{descriptor}")
        path.write_bytes(content)
        yield path
    finally:
        os.close(descriptor)
