"""Weights that cannot be used as they lie: converted once, a tensor at a time. And the token embedding tables."""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

from sdxl_trt.errors import CheckpointError
from sdxl_trt.export.safetensors import DTYPES, TensorRef
from sdxl_trt.files import atomic_write

_CODES = {name: code for code, name in DTYPES.items()}
_NUMPY = {"float16": np.dtype(np.float16), "float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def needs_conversion(tensors: dict[str, TensorRef], dtype: str) -> bool:
    """A graph in fp16 needs weights in fp16; one in fp32 casts narrower ones as it loads them."""
    return dtype == "float16" and any(ref.dtype != "float16" for ref in tensors.values())


def convert(root: Path, tensors: dict[str, TensorRef], dtype: str, target: Path, location: str) -> dict[str, TensorRef]:
    """Write all tensors as `dtype` into a safetensors file, with one tensor in memory at a time.

    Returns their new places, under the given location.

    Raises:
        CheckpointError: a value is NaN, infinite, or too large for `dtype`.
    """
    item = _NUMPY[dtype].itemsize
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, ref in tensors.items():
        length = int(np.prod(ref.shape, dtype=np.int64)) * item
        header[name] = {"dtype": _CODES[dtype], "shape": list(ref.shape), "data_offsets": [end, end + length]}
        end += length
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    places, offset = {}, 8 + len(text)
    with atomic_write(target) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, array in read_tensors(root, tensors):
            data = _converted(array, dtype, name).tobytes()
            file.write(data)
            shape = tensors[name].shape
            places[name] = TensorRef(location=location, offset=offset, length=len(data), dtype=dtype, shape=shape)
            offset += len(data)
    return places


def _converted(array: np.ndarray, dtype: str, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        converted = array.astype(_NUMPY[dtype])
    if not np.isfinite(converted).all():
        raise CheckpointError(
            f"tensor {name} does not fit {dtype}",
            got=f"values up to {np.abs(array.astype(np.float32)).max():g}",
            expected=f"finite values up to {ml_dtypes.finfo(_NUMPY[dtype]).max:g}",
            fix="use a checkpoint whose weights fit fp16",
        )
    return converted


def read_tensors(root: Path, tensors: dict[str, TensorRef]) -> Iterator[tuple[str, np.ndarray]]:
    """Each tensor as a view of its memory-mapped file."""
    maps: dict[str, mmap.mmap] = {}
    for name, ref in tensors.items():
        if ref.location not in maps:
            with (root / ref.location).open("rb") as file:
                maps[ref.location] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        count = ref.length // _NUMPY[ref.dtype].itemsize
        array = np.frombuffer(maps[ref.location], dtype=_NUMPY[ref.dtype], count=count, offset=ref.offset)
        yield name, array.reshape(ref.shape)


def write_embedding_table(root: Path, tensors: dict[str, TensorRef], target: Path) -> None:
    """Copy a text encoder's token embeddings [vocabulary, width] into a .npy file (float16 or float32).

    Raises:
        CheckpointError: there is no such tensor.
    """
    name = next((name for name in tensors if name.endswith("embeddings.token_embedding.weight")), None)
    if name is None:
        raise CheckpointError(
            f"{target.parent.name} has no token embeddings",
            expected="a tensor text_model.embeddings.token_embedding.weight",
            fix="give a checkpoint with whole text encoders",
        )
    ((_, table),) = read_tensors(root, {name: tensors[name]})
    if table.dtype == _NUMPY["bfloat16"]:
        table = table.astype(np.float32)  # numpy's own format has no bfloat16
    with atomic_write(target) as file:
        np.lib.format.write_array(file, table, allow_pickle=False)
