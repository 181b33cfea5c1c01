"""Checkpoints of SDXL's true size and layout with random weights: time, memory and structure do not depend on values.

Values are drawn so that a picture comes out finite and not constant: products keep their input's variance, norms are
the identity, biases zero.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.export.clip_bpe import clip_vocabulary
from sdxl_trt.export.parts import Component
from sdxl_trt.export.published import published
from sdxl_trt.export.trace import parameter_shapes
from sdxl_trt.files import atomic_write, write_json

Shapes = dict[str, tuple[int, ...]]
Write = Callable[[Path, Shapes, int], None]
"""Writes a safetensors file of tensors of these shapes; values from a seed."""

TURBO = {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}
"""Of SDXL-Turbo's scheduler config, what differs from base's; all else of the model is the same."""


def make(folder: Path, kind: str, write: Write | None = None) -> None:
    """Write a checkpoint in diffusers' layout, float16; files that are there already are kept.

    Args:
        folder: to write; need not exist.
        kind: 'base', 'refiner' or 'turbo'.
        write: the weights; by default `write_random`.
    """
    configs = published("refiner" if kind == "refiner" else "base")
    if kind == "turbo":
        configs["scheduler"] |= TURBO
    write_json(folder / "model_index.json", configs["model_index"])
    write_json(folder / "scheduler" / "scheduler_config.json", configs["scheduler"])
    for name in configs.keys() - {"model_index", "scheduler"}:
        write_json(folder / name / "config.json", configs[name])
        if name.startswith("text_encoder"):
            _write_tokenizer(folder / name.replace("text_encoder", "tokenizer"), pad="!" if name[-1] == "2" else None)
        weights = "model" if name.startswith("text_encoder") else "diffusion_pytorch_model"
        path = folder / name / f"{weights}.fp16.safetensors"
        if not path.exists():
            shapes = parameter_shapes(Component(name=name, config=configs[name], tensors={}, files={}))
            (write or write_random)(path, shapes, sum(name.encode()))


def _write_tokenizer(folder: Path, pad: str | None) -> None:
    vocabulary, merges = clip_vocabulary()
    write_json(folder / "vocab.json", vocabulary)
    with atomic_write(folder / "merges.txt") as file:
        file.write(("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n").encode())
    end = "<|endoftext|>"
    config: dict[str, Any] = {
        "bos_token": "<|startoftext|>",
        "eos_token": end,
        "unk_token": end,
        "pad_token": pad or end,
    }
    write_json(folder / "tokenizer_config.json", {**config, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"})


def write_random(path: Path, shapes: Shapes, seed: int) -> None:
    """Write float16 tensors of these shapes into a safetensors file, with one in memory at a time."""
    with atomic_write(path) as file:
        file.write(_header(shapes))
        for array in _values(shapes, np.random.Generator(np.random.SFC64(seed))):
            file.write(array.data)


def write_sparse(path: Path, shapes: Shapes, _seed: int) -> None:
    """The same with zeros that take no room on the disk, for what looks at shapes alone."""
    header = _header(shapes)
    with atomic_write(path) as file:
        file.write(header)
        file.truncate(len(header) + 2 * sum(map(math.prod, shapes.values())))


def _header(shapes: Shapes) -> bytes:
    header, end = {}, 0
    for name, shape in shapes.items():
        length = 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end + length]}
        end += length
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _values(shapes: Shapes, rng: np.random.Generator) -> Iterator[NDArray[np.float16]]:
    for name, shape in shapes.items():
        if len(shape) > 1:
            deviation = 0.02 if "embedding" in name else math.prod(shape[1:]) ** -0.5
            yield (rng.standard_normal(shape, np.float32) * np.float32(deviation)).astype(np.float16)
        else:
            yield np.full(shape, float(name.endswith("weight")), np.float16)
