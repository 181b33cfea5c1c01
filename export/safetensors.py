"""Where each tensor of a checkpoint lies, without reading any of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sdxl_trt import safetensors
from sdxl_trt.errors import CheckpointError
from sdxl_trt.safetensors import StoredTensor

DTYPES = {"F16": "float16", "F32": "float32", "BF16": "bfloat16"}
"""safetensors' names of the dtypes that weights come in, and numpy's (ml_dtypes' for bfloat16)."""


@dataclass(frozen=True, kw_only=True)
class TensorRef:
    """A tensor's place in a file."""

    name: str
    """In diffusers' layout."""
    location: str
    """The file: a key of `sdxl_trt.export.checkpoint.Checkpoint.files`."""
    offset: int
    """Bytes from the start of the file."""
    length: int
    """Bytes."""
    dtype: str
    """numpy's name, or safetensors' own where it is none of `DTYPES`."""
    shape: tuple[int, ...]
    transposed: bool = False
    """The file holds the transpose of this matrix."""

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of what the file holds."""
        return self.shape[::-1] if self.transposed else self.shape


def read_header(root: Path, location: str) -> dict[str, TensorRef]:
    """All tensors of a safetensors file, by name.

    Raises:
        CheckpointError: the file is missing, cut short, or its header contradicts its size or itself.
    """
    return {
        name: TensorRef(
            name=name,
            location=location,
            offset=tensor.offset,
            length=tensor.length,
            dtype=DTYPES.get(tensor.dtype, tensor.dtype),
            shape=tensor.shape,
        )
        for name, tensor in _header(root / location)[0].items()
    }


def read_metadata(path: Path) -> dict[str, str]:
    """What the author of a safetensors file wrote into its header.

    Raises:
        CheckpointError: as `read_header`.
    """
    return _header(path)[1]


def _header(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    try:
        return safetensors.read_header(path)
    except safetensors.SafetensorsError as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors",
            got=str(error),
            expected="a whole file, as its author published it",
            fix="download it again and compare its size or checksum",
        ) from error


def component_tensors(root: Path, component: str) -> dict[str, TensorRef]:
    """All tensors of a component folder, in one file or in shards; the fp16 variant where there is one.

    Raises:
        CheckpointError: no safetensors are there (says what is), or a file is damaged or a shard is missing.
    """
    folder = root / component
    for pattern in ("*.safetensors.index.fp16.json", "*.fp16.safetensors", "*.safetensors.index.json", "*.safetensors"):
        found = sorted(folder.glob(pattern))
        if found:
            break
    else:
        raise _no_weights(folder)
    names = [f"{component}/{path.name}" for path in found]
    if found[0].suffix == ".json":
        names = [f"{component}/{name}" for name in shard_names(found[0])]
    elif len(found) > 1:
        raise CheckpointError(
            f"{folder} has more than one weights file",
            got=", ".join(path.name for path in found),
            expected="one .safetensors file, or shards with their index",
            fix="remove the ones that are not meant",
        )
    return {name: ref for location in names for name, ref in read_header(root, location).items()}


def shard_names(index: Path) -> list[str]:
    """The names of the files that an index of shards lists.

    Raises:
        CheckpointError: it cannot be read, or is no such index.
    """
    try:
        shards = set(json.loads(index.read_bytes())["weight_map"].values())
        if not all(isinstance(name, str) and "/" not in name for name in shards):
            raise ValueError("a shard's name is no plain file name")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index} is not an index of shards",
            got=str(error),
            expected='{"weight_map": {tensor: file}}',
            fix="download it again",
        ) from error
    return sorted(shards)


def _no_weights(folder: Path) -> CheckpointError:
    others = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".ckpt", ".pt", ".pth"))
    if others:
        return CheckpointError(
            f"{folder} has weights that only Python's pickle can read",
            got=", ".join(others),
            expected="safetensors: loading a pickle runs whatever code is in it",
            fix="convert in a sandbox: pipeline.save_pretrained(DIR, safe_serialization=True)",
        )
    return CheckpointError(
        f"{folder} has no weights",
        got="no .safetensors file",
        expected="diffusion_pytorch_model.safetensors, model.safetensors, or shards with their index",
        fix="finish the download",
    )
