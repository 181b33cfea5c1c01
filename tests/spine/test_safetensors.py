"""The reader of safetensors files against the library of that name."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdxl_trt.safetensors import SafetensorsError, read_floats, read_header


def write(path: Path, header: Any, data: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_values_and_metadata_are_the_librarys(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=generator).to(dtype)
        for name, shape, dtype in (
            ("half", (3, 5), torch.float16),
            ("single", (7,), torch.float32),
            ("brain", (2, 2, 2), torch.bfloat16),
            ("scalar", (), torch.float32),
            ("none", (0, 4), torch.float16),
        )
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"author": "somebody"})
    header, metadata = read_header(tmp_path / "x.safetensors")
    assert metadata == {"author": "somebody"}
    assert header.keys() == tensors.keys()
    for name, tensor in tensors.items():
        values = read_floats(tmp_path / "x.safetensors", header[name])
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, tensor.float().numpy())


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": ENTRY}, 7),
        ({"a": ENTRY}, 9),
        ({"a": ENTRY, "b": ENTRY}, 8),
        ({"a": {**ENTRY, "shape": [3]}}, 8),
        ({"a": {**ENTRY, "shape": [-1, -2]}}, 8),
        ({"a": {**ENTRY, "shape": [2.0]}}, 8),
        ({"a": {**ENTRY, "shape": [2**62, 2**62]}}, 8),
        ({"a": {**ENTRY, "dtype": "X32"}}, 8),
        ({"a": {**ENTRY, "data_offsets": [8, 16]}}, 16),
        ({"a": {**ENTRY, "data_offsets": [8, 0]}}, 8),
        ({"a": {**ENTRY, "data_offsets": [0]}}, 8),
        ({"a": {"dtype": "F32", "shape": [2]}}, 8),
        ({"a": 5}, 8),
        ([ENTRY], 8),
        (b"{", 8),
        (b"", 8),
        (b'{"a":%s,"a":%s}' % ((json.dumps(ENTRY).encode(),) * 2), 8),
    ],
)
def test_what_does_not_add_up_is_refused_as_the_library_refuses_it(tmp_path: Path, header: Any, data: int) -> None:
    import safetensors

    path = write(tmp_path / "x.safetensors", header, bytes(data))
    with pytest.raises(SafetensorsError):
        read_header(path)
    if header != [ENTRY] and b'"a"' not in (header if isinstance(header, bytes) else b""):
        with pytest.raises(safetensors.SafetensorError), safetensors.safe_open(path, framework="numpy"):
            pass


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\x80\2}q\0.", struct.pack("<Q", 2**63) + b"{}"])
def test_files_of_other_kinds_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(SafetensorsError):
        read_header(tmp_path / "x.safetensors")
    with pytest.raises(SafetensorsError, match="No such file"):
        read_header(tmp_path / "nowhere")


def test_integers_and_shortened_files_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {"a": {**ENTRY, "dtype": "I32"}}, bytes(8))
    tensor = read_header(path)[0]["a"]
    with pytest.raises(SafetensorsError, match="I32"):
        read_floats(path, tensor)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SafetensorsError, match="shorter"):
        read_floats(path, tensor)
