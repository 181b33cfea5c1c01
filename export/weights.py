"""Weights that cannot be used as they lie: converted once, a piece at a time. And the token embedding tables."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from sdxl_trt.errors import CheckpointError
from sdxl_trt.export.safetensors import DTYPES, TensorRef
from sdxl_trt.files import atomic_write

PIECE = 2**22
"""Values converted at a time: 16 MiB of float32."""

_CODES = {name: code for code, name in DTYPES.items()}
_NUMPY = {"float16": np.dtype(np.float16), "float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

_RENAMED = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
"""diffusers' names of a VAE's attention, and those that its early versions wrote."""


def needs_conversion(tensors: dict[str, TensorRef], dtype: str) -> bool:
    """A graph in fp16 needs weights in fp16; one in fp32 casts narrower ones as it loads them."""
    return dtype == "float16" and any(ref.dtype != "float16" for ref in tensors.values())


def match_parameters(
    component: str, shapes: dict[str, tuple[int, ...]], tensors: dict[str, TensorRef]
) -> dict[str, TensorRef]:
    """The checkpoint's tensor of every parameter of the torch module.

    Raises:
        CheckpointError: one is missing, or has another shape than the config says or a dtype that is not read; or a
            UNet has tensors that the config leaves out.
    """
    found = {name: next((tensors[n] for n in _spellings(name) if n in tensors), None) for name in shapes}
    _expect_none(component, [name for name, ref in found.items() if ref is None], "lack", "that the config asks for")
    matched = {name: ref for name, ref in found.items() if ref is not None}
    if component == "unet":  # blocks that would be left out make another network; encoders carry spare tensors
        spare = tensors.keys() - {ref.name for ref in matched.values()}
        _expect_none(component, sorted(spare), "have", "that the config leaves out")
    for name, ref in matched.items():
        if ref.shape != shapes[name]:
            raise CheckpointError(
                f"{component}: tensor {ref.name} does not fit the config",
                got=str(list(ref.shape)),
                expected=str(list(shapes[name])),
                fix="take config.json and all weights from one model; download a single file again",
            )
        if ref.dtype not in _NUMPY:
            raise CheckpointError(
                f"{component}: tensor {ref.name} is of a dtype that is not read",
                got=ref.dtype,
                expected=", ".join(DTYPES),
                fix="take the model's fp16 weights; engines are quantised from those",
            )
    return matched


def _spellings(name: str) -> Iterator[str]:
    """The names a parameter may have in a checkpoint."""
    yield name
    yield f"text_model.{name}"  # transformers 5 saves CLIPTextModel without the prefix that earlier versions wrote
    for new, old in _RENAMED.items():
        if new in name:
            yield name.replace(new, old)


def _expect_none(component: str, names: list[str], verb: str, which: str) -> None:
    if names:
        raise CheckpointError(
            f"{component}: the weights {verb} {len(names)} tensors {which}",
            got=f"{'no ' if verb == 'lack' else ''}{', '.join(names[:3])}" + (" …" if len(names) > 3 else ""),
            expected="the tensors that the config asks for, all of them and no others",
            fix="take config.json and all weights from one model; download a single file again",
        )


def convert(
    files: Mapping[str, Path], tensors: dict[str, TensorRef], dtype: str, target: Path, location: str
) -> dict[str, TensorRef]:
    """Write all tensors as `dtype` into a safetensors file, with `PIECE` values in memory at a time.

    Args:
        files: paths of the tensors' locations.

    Returns:
        Their new places, under the given location, by the same keys.

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
    with atomic_write(target) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        places = {}
        for key, ref in tensors.items():
            offset = file.tell()
            for piece in _pieces(files, ref):
                file.write(_converted(piece, dtype, ref.name).tobytes())
            place = dataclasses.replace(ref, location=location, offset=offset, dtype=dtype, transposed=False)
            places[key] = dataclasses.replace(place, length=file.tell() - offset)
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


def _pieces(files: Mapping[str, Path], ref: TensorRef) -> Iterator[np.ndarray]:
    """A tensor's values in order, flat; read, not mapped: pages of a map stay in memory."""
    if ref.transposed:
        yield read_tensor(files, ref).reshape(-1)
        return
    dtype = _NUMPY[ref.dtype]
    with files[ref.location].open("rb") as file:
        file.seek(ref.offset)
        for start in range(0, ref.length, PIECE * dtype.itemsize):
            yield np.frombuffer(file.read(min(PIECE * dtype.itemsize, ref.length - start)), dtype)


def read_tensor(files: Mapping[str, Path], ref: TensorRef) -> np.ndarray:
    """One tensor, read into memory."""
    with files[ref.location].open("rb") as file:
        file.seek(ref.offset)
        array = np.frombuffer(file.read(ref.length), _NUMPY[ref.dtype]).reshape(ref.stored_shape)
    return array.T if ref.transposed else array


def write_embedding_table(files: Mapping[str, Path], table: TensorRef, target: Path) -> None:
    """Copy a text encoder's token embeddings [vocabulary, width] into a .npy file (float16 or float32)."""
    array = read_tensor(files, table)
    if table.dtype == "bfloat16":
        array = array.astype(np.float32)  # numpy's own format has no bfloat16
    with atomic_write(target) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)
