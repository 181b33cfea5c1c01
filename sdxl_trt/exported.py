"""The export folder: what `export` writes and `engines` reads.

    export.json                      this index, written last and atomically
    <precision>/<graph>.onnx         graphs without weights (float16, float32)
    <encoder>/tokenizer.json         both tokenizers in the form of the `tokenizers` library
    <encoder>/token_embedding.npy    the token embedding tables [vocabulary, width]
    licence/<name>                   the checkpoint's licence texts
    converted/<name>.safetensors     only where the checkpoint's dtype is wider than the graph's

A graph's initializers are ONNX external data whose `location` is a key of `ExportIndex.weights`, which says where that
file is: for most checkpoints in the checkpoint's own folder, so no weight was copied.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from sdxl_trt.bundle.content import Blob
from sdxl_trt.decode import DecodeError, decode, loads
from sdxl_trt.errors import ExportError
from sdxl_trt.files import write_json
from sdxl_trt.spec import SPEC_VERSION, ModelSpec

INDEX_NAME = "export.json"
UNFINISHED_NAME = "unfinished.json"
"""The same index while an export runs, or where it was stopped: it names the graphs that are done."""
EXPORT_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A safetensors file that graphs point into."""

    path: str
    """Absolute, or relative to the export folder."""
    content: Blob


@dataclass(frozen=True, kw_only=True)
class ExportedGraph:
    """One ONNX file."""

    file: str
    """Relative to the export folder."""
    content: Blob
    weights: tuple[str, ...]
    """Keys of `ExportIndex.weights` that the graph reads."""


@dataclass(frozen=True, kw_only=True)
class ExportIndex:
    """export.json."""

    schema: int = EXPORT_SCHEMA
    spec: int = SPEC_VERSION
    tool: str
    versions: dict[str, str]
    """torch, diffusers, transformers, onnx: what traced the graphs."""
    model: ModelSpec
    weights: dict[str, WeightsFile]
    """By the `location` that stands in the graphs."""
    graphs: dict[str, dict[str, ExportedGraph]]
    """By precision (float16, float32), then by graph name."""
    files: dict[str, Blob]
    """Everything else in the folder that a bundle needs, by path relative to it."""


def write_index(folder: Path, index: ExportIndex, name: str = INDEX_NAME) -> None:
    """Write export.json atomically; every file it names must be in place."""
    write_json(folder / name, dataclasses.asdict(index))


def read_index(folder: Path, name: str = INDEX_NAME) -> ExportIndex:
    """Read export.json.

    Raises:
        ExportError: it is missing, damaged, or of another version.
    """
    path = folder / name
    try:
        index = decode(ExportIndex, loads(path.read_bytes(), max_bytes=2**26))
    except OSError as error:
        raise ExportError(
            f"{folder} is not an export folder",
            got=f"{name}: {error.strerror}",
            expected="a folder that `sdxl-trt export` finished",
            fix=f"sdxl-trt export MODEL -o {folder}",
        ) from error
    except DecodeError as error:
        raise ExportError(f"{path} is damaged", got=str(error), fix=f"sdxl-trt export MODEL -o {folder}") from error
    if (index.schema, index.spec) != (EXPORT_SCHEMA, SPEC_VERSION):
        raise ExportError(
            f"{path} is of another version",
            got=f"schema {index.schema}, spec {index.spec}",
            expected=f"schema {EXPORT_SCHEMA}, spec {SPEC_VERSION}",
            fix=f"sdxl-trt export MODEL -o {folder}",
        )
    return index


def weights_path(folder: Path, index: ExportIndex, location: str) -> Path:
    """Where the file of an initializer's `location` lies."""
    return folder / index.weights[location].path  # an absolute path replaces the folder
