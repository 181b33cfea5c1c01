"""The demo checkpoint's modules with fresh weights, and trained ones as diffusers folders.

The architecture is written down once, in the JSON files of the committed checkpoint; its tokenizers are fixed, too.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from safetensors.torch import save as as_bytes
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdxl_trt.paths import DEMO_CHECKPOINT

FILES = {
    "vae": "diffusion_pytorch_model.fp16.safetensors",
    "unet": "diffusion_pytorch_model.fp16.safetensors",
    "text_encoder": "model.fp16.safetensors",
    "text_encoder_2": "model.fp16.safetensors",
}
TOKENIZERS = ("tokenizer", "tokenizer_2")


def config(part: str) -> dict[str, Any]:
    """One JSON file of the committed checkpoint."""
    read: dict[str, Any] = json.loads((DEMO_CHECKPOINT / part / _json_name(part)).read_text(encoding="utf-8"))
    return read


def _json_name(part: str) -> str:
    return {"": "model_index.json", "scheduler": "scheduler_config.json"}.get(part, "config.json")


def new_vae() -> Any:
    """An untrained autoencoder."""
    return AutoencoderKL.from_config(config("vae"))


def new_unet(**changes: Any) -> Any:
    """An untrained UNet; `changes` to its config."""
    return UNet2DConditionModel.from_config(config("unet") | changes)


def new_text_encoders() -> dict[str, Any]:
    """Both untrained text encoders."""
    return {
        "text_encoder": CLIPTextModel(_trainable(config("text_encoder"))),
        "text_encoder_2": CLIPTextModelWithProjection(_trainable(config("text_encoder_2"))),
    }


def _trainable(read: dict[str, Any]) -> CLIPTextConfig:
    return CLIPTextConfig(**read | {"dtype": "float32"})


def token_ids(captions: list[str]) -> Tensor:
    """Ids of both tokenizers [2, captions, 77]."""
    tokenizers = [Tokenizer.from_file(str(DEMO_CHECKPOINT / part / "tokenizer.json")) for part in TOKENIZERS]
    return torch.tensor([[each.ids for each in tokenizer.encode_batch(captions)] for tokenizer in tokenizers])


def load(folder: Path, device: str) -> tuple[Any, nn.ModuleDict]:
    """The autoencoder of a base checkpoint that `save` wrote; its UNet and text encoders. In evaluation mode."""
    modules = nn.ModuleDict({"vae": new_vae(), **new_text_encoders(), "unet": new_unet()})
    for part, module in modules.items():
        module.load_state_dict(load_file(folder / part / FILES[part]))
    base = modules.to(device).eval().requires_grad_(False)
    return base.pop("vae"), base


def save(folder: Path, parts: dict[str, nn.Module], configs: dict[str, dict[str, Any]]) -> None:
    """Write a diffusers folder: the modules in float16, their configs, the tokenizers, the licence.

    Args:
        folder: replaced, once the new one is complete.
        parts: modules by part.
        configs: what differs from the committed checkpoint's JSON files, by part ('' is model_index.json).
    """
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    described = {part: config(part) | configs.get(part, {}) for part in ("", "scheduler", *parts)}
    for part, content in described.items():
        (new / part).mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        (new / part / _json_name(part)).write_text(text, encoding="utf-8")
    for part, module in parts.items():
        tensors = {name: value.half().contiguous().cpu() for name, value in module.state_dict().items()}
        (new / part / FILES[part]).write_bytes(as_bytes(tensors, metadata={"format": "pt"}))
    for part in TOKENIZERS:
        if described[""][part][0]:
            shutil.copytree(DEMO_CHECKPOINT / part, new / part)
    shutil.copy(DEMO_CHECKPOINT / "LICENSE", new)
    shutil.rmtree(folder, ignore_errors=True)
    new.replace(folder)


def share(folder: Path, other: Path) -> None:
    """Replace files of a checkpoint that another one beside it has too, byte for byte, by relative links to those."""
    for file in sorted(folder.rglob("*")):
        same = other / file.relative_to(folder)
        if file.is_file() and same.is_file() and file.read_bytes() == same.read_bytes():
            file.unlink()
            file.symlink_to(Path(os.path.relpath(same, file.parent)))
