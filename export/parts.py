"""What a checkpoint consists of, however it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdxl_trt.export.safetensors import TensorRef
from sdxl_trt.export.tokenizers import CanonicalTokenizer


@dataclass(frozen=True, kw_only=True)
class Component:
    """One network of the checkpoint."""

    name: str
    config: dict[str, Any]
    tensors: dict[str, TensorRef]
    files: dict[str, Path]
    """Paths of the files that the tensors are in, by location."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A checkpoint as it was read: nothing is known yet about how its parts fit together."""

    name: str
    index: dict[str, Any]
    """model_index.json."""
    scheduler: dict[str, Any]
    """scheduler_config.json."""
    components: dict[str, Component]
    tokenizers: dict[str, CanonicalTokenizer]
    """By text encoder."""
    licences: tuple[Path, ...]


def licences_in(folder: Path) -> tuple[Path, ...]:
    """The licence texts of a checkpoint's folder."""
    return tuple(sorted(p for p in folder.iterdir() if p.is_file() and p.name.lower().startswith("licen")))
