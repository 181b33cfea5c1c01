"""What a safetensors file holds, every number of its header checked before any of its data is read.

Format: an 8-byte little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, then the data, which
the tensors cover without a gap (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.decode import DecodeError, decode, loads

_MOST_HEADER = 100_000_000
"""Bytes; the format's own limit."""

_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}


class SafetensorsError(ValueError):
    """A file that is not safetensors, or not whole; the message says what does not add up."""


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor's place in a file."""

    dtype: str
    """safetensors' name: F16, F32, BF16, …"""
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the file."""
    length: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def read_header(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """All tensors of a file by name, and what its author wrote beside them.

    Raises:
        SafetensorsError: it cannot be read, is cut short, or its header contradicts its size or itself.
    """
    try:
        with path.open("rb") as file:
            total = path.stat().st_size
            size = int.from_bytes(file.read(8), "little")
            if total < 8 or not 0 < size <= min(_MOST_HEADER, total - 8):
                raise SafetensorsError(f"a header of {size} bytes in a file of {total}")
            header = decode(dict[str, Any], loads(file.read(size), max_bytes=size))
            metadata = decode(dict[str, str], header.pop("__metadata__", {}))
            entries = {name: decode(_Entry, entry, name) for name, entry in header.items()}
    except (OSError, DecodeError) as error:
        raise SafetensorsError(str(error)) from error
    _check_layout(entries, total - 8 - size)
    tensors = {
        name: StoredTensor(
            dtype=entry.dtype,
            shape=entry.shape,
            offset=8 + size + entry.data_offsets[0],
            length=entry.data_offsets[1] - entry.data_offsets[0],
        )
        for name, entry in entries.items()
    }
    return tensors, metadata


def read_floats(path: Path, tensor: StoredTensor) -> NDArray[np.float32]:
    """The values of an F16, BF16 or F32 tensor of `read_header`, as float32 of its shape.

    Raises:
        SafetensorsError: of another dtype, or the file has changed.
    """
    with path.open("rb") as file:
        file.seek(tensor.offset)
        data = file.read(tensor.length)
    if len(data) != tensor.length:
        raise SafetensorsError("the file has become shorter")
    if tensor.dtype == "BF16":  # the upper half of a float32
        values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif tensor.dtype in ("F16", "F32"):
        values = np.frombuffer(data, "<f2" if tensor.dtype == "F16" else "<f4").astype(np.float32)
    else:
        raise SafetensorsError(f"{tensor.dtype} where F16, BF16 or F32 is read")
    return values.reshape(tensor.shape)


def _check_layout(entries: dict[str, _Entry], data: int) -> None:
    """Tensors lie one after the other, each as long as its shape says, and fill the data."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        start, stop = entry.data_offsets
        if entry.dtype not in _BITS or min(entry.shape, default=0) < 0:
            raise SafetensorsError(f"{name}: {entry.dtype} {list(entry.shape)}")
        bits = math.prod(entry.shape) * _BITS[entry.dtype]
        if start != end or (stop - start) * 8 != bits:
            raise SafetensorsError(f"{name}: bytes {start} to {stop} for {entry.dtype} {list(entry.shape)}")
        end = stop
    if end != data:
        raise SafetensorsError(f"{data} bytes of data where the tensors have {end}")
