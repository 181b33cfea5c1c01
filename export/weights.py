"""Weights that cannot be used as they lie: converted once, a tensor at a time. And the token embedding tables."""

from __future__ import annotations

import dataclasses
import json
import math
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


def match_parameters(
    component: str, shapes: dict[str, tuple[int, ...]], tensors: dict[str, TensorRef]
) -> dict[str, TensorRef]:
    """The checkpoint's tensor of every parameter of the torch module.

    Raises:
        CheckpointError: one is missing, or has another shape than the config says.
    """
    # transformers 5 saves CLIPTextModel without the prefix that its earlier versions wrote.
    found = {name: tensors.get(name) or tensors.get(f"text_model.{name}") for name in shapes}
    missing = [name for name, ref in found.items() if ref is None]
    if missing:
        raise CheckpointError(
            f"{component}: the weights lack {len(missing)} tensors",
            got=f"no {', '.join(missing[:3])}" + (" …" if len(missing) > 3 else ""),
            expected="every tensor that the config asks for",
            fix="the config.json and the weights are of different models, or a shard is missing",
        )
    matched = {name: ref for name, ref in found.items() if ref is not None}
    for name, ref in matched.items():
        if ref.shape != shapes[name]:
            raise CheckpointError(
                f"{component}: tensor {ref.name} does not fit the config",
                got=str(list(ref.shape)),
                expected=str(list(shapes[name])),
                fix="the config.json and the weights are of different models; take both from one",
            )
    return matched


def convert(root: Path, tensors: dict[str, TensorRef], dtype: str, target: Path, location: str) -> dict[str, TensorRef]:
    """Write all tensors as `dtype` into a safetensors file, with one tensor in memory at a time.

    Returns their new places, under the given location, by the same keys.

    Raises:
        CheckpointError: a value is NaN, infinite, or too large for `dtype`.
    """
    item = _NUMPY[dtype].itemsize
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for ref in tensors.values():
        length = math.prod(ref.shape) * item
        header[ref.name] = {"dtype": _CODES[dtype], "shape": list(ref.shape), "data_offsets": [end, end + length]}
        end += length
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    places, offset = {}, 8 + len(text)
    with atomic_write(target) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for key, array in read_tensors(root, tensors):
            data = _converted(array, dtype, tensors[key].name).tobytes()
            file.write(data)
            places[key] = dataclasses.replace(
                tensors[key], location=location, offset=offset, length=len(data), dtype=dtype
            )
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
    """Each tensor, by its key, as a view of its memory-mapped file."""
    maps: dict[str, mmap.mmap] = {}
    for key, ref in tensors.items():
        if ref.location not in maps:
            with (root / ref.location).open("rb") as file:
                maps[ref.location] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        count = ref.length // _NUMPY[ref.dtype].itemsize
        array = np.frombuffer(maps[ref.location], dtype=_NUMPY[ref.dtype], count=count, offset=ref.offset)
        yield key, array.reshape(ref.shape)


def write_embedding_table(root: Path, table: TensorRef, target: Path) -> None:
    """Copy a text encoder's token embeddings [vocabulary, width] into a .npy file (float16 or float32)."""
    ((_, array),) = read_tensors(root, {table.name: table})
    if table.dtype == "bfloat16":
        array = array.astype(np.float32)  # numpy's own format has no bfloat16
    with atomic_write(target) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)
