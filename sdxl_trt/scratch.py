"""Memory that TensorRT says a plan works in, kept on this host: `plan` then has its figure, not one from the graph.

It is told when an engine is opened (ICudaEngine.device_memory_size_v2), on the GPU, which whoever plans may not have.
"""

from __future__ import annotations

from pathlib import Path

from sdxl_trt.files import atomic_write
from sdxl_trt.paths import cache_folder

MOST_DIGITS = 18


def note_scratch(plan: str, size: int) -> None:
    """Keep a figure.

    Args:
        plan: SHA-256 of the plan.
        size: bytes, at the largest shapes that it takes.

    Raises:
        OutputError: the cache cannot be written to.
    """
    if known_scratch(plan) != size:
        with atomic_write(_file(plan)) as file:
            file.write(str(size).encode())


def known_scratch(plan: str) -> int | None:
    """The figure of a plan that was opened here; None of all others."""
    try:
        text = _file(plan).read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if len(text) <= MOST_DIGITS and text.isdecimal() else None


def _file(plan: str) -> Path:
    return cache_folder() / "scratch" / plan
