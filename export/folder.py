"""Checkpoints in diffusers' layout: a folder with a folder for each part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sdxl_trt.errors import CheckpointError
from sdxl_trt.export.parts import Component, Parts, licences_in
from sdxl_trt.export.safetensors import component_tensors
from sdxl_trt.export.tokenizers import canonical_tokenizer
from sdxl_trt.paths import model_name

PIPELINES = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline")
"""Values of model_index.json's _class_name that are an SDXL."""

ENCODERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
"""Text encoders and the folders of their tokenizers."""


def read_folder(root: Path) -> Parts:
    """Read a folder's configs, tokenizers and safetensors headers.

    Raises:
        CheckpointError: it is no SDXL in diffusers' layout, or a part is missing or damaged.
    """
    index = _read_index(root)
    encoders = [name for name in ENCODERS if (index.get(name) or [None])[0]]
    return Parts(
        name=model_name(root),
        index=index,
        scheduler=read_json(root / "scheduler" / "scheduler_config.json"),
        components={name: read_component(root, name) for name in (*encoders, "unet", "vae")},
        tokenizers={name: canonical_tokenizer(root / ENCODERS[name]) for name in encoders},
        licences=licences_in(root),
    )


def read_component(root: Path, name: str) -> Component:
    """One network of a folder.

    Raises:
        CheckpointError: its config or its weights are missing or damaged.
    """
    config = read_json(root / name / "config.json")
    tensors = component_tensors(root, name)
    locations = {ref.location for ref in tensors.values()}
    return Component(name=name, config=config, tensors=tensors, files={at: root.resolve() / at for at in locations})


def _read_index(root: Path) -> dict[str, Any]:
    if not (root / "model_index.json").is_file():
        raise CheckpointError(
            f"{root} is not a model",
            got="a folder without model_index.json" if root.is_dir() else "no such folder or file",
            expected="a folder in diffusers' layout, a .safetensors file, or 'demo'",
            fix="check the path",
        )
    index = read_json(root / "model_index.json")
    if index.get("_class_name") not in PIPELINES:
        raise CheckpointError(
            f"{root} is not an SDXL model",
            got=f"a {index.get('_class_name')}",
            expected=" or ".join(PIPELINES),
            fix="this tool builds SDXL base, refiner, Turbo and inpainting models",
        )
    return index


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint's folder.

    Raises:
        CheckpointError: it is missing, or none.
    """
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read", got=str(error), expected="a JSON object", fix="finish or repeat the download"
        ) from error
    return value
