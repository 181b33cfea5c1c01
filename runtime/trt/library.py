"""The two libraries that run plans. Their interface is the same, but for what one of them finishes at run time.

Integer values of their enumerations are never kept: TensorRT 11 renumbered them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sdxl_trt.errors import OutOfMemory, RunError, SdxlTrtError
from sdxl_trt.runtime.cuda import CudaDevice


@dataclass(frozen=True, kw_only=True)
class Library:
    """One of them."""

    module: str
    """Its Python module."""
    finishes_engines: bool
    """Compiles kernels when an engine is loaded, and so has a cache of them, a check of plans before they are read,
    an answer to whether an engine can be recorded (`runtime/trt/rtx.py`), and a way to keep an engine without its
    weights (`runtime/trt/parking.py`)."""


LIBRARIES = {
    "tensorrt": Library(module="tensorrt", finishes_engines=False),
    "tensorrt-rtx": Library(module="tensorrt_rtx", finishes_engines=True),
}
"""By flavour."""

_FULL = ("outofmemory", "out of memory", "bad_alloc")


def refused(what: str, log: Any, device: CudaDevice, *, asked: int = 0, fix: str) -> SdxlTrtError:
    """The error for a call that TensorRT answered with no.

    Args:
        what: what failed.
        log: its logger; only errors since the call are in it.
        device: tells what memory is free.
        asked: bytes of memory that the call needs at least, where that is known.
        fix: what helps, unless memory is short.
    """
    got = next(iter(log.errors), "no message")
    if not any(word in message.lower() for message in log.errors for word in _FULL):
        return RunError(what, got=got, fix=fix)
    memory = device.memory()
    return OutOfMemory(
        f"{what}: the GPU has too little memory",
        got=f"{memory.free / 1e9:.2f} of {memory.total / 1e9:.2f} GB free; {got}",
        expected=f"more than {asked / 1e9:.2f} GB free" if asked else "",
        fix="a smaller size or batch; or end other processes on the GPU (nvidia-smi shows them)",
    )
