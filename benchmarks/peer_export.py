"""The usual export: modules loaded with their weights, and torch.onnx.export's older exporter (opset 19).

`python -m benchmarks.peer_export CHECKPOINT FOLDER GRAPH …` writes text_encoder, text_encoder_2, unet and vae (its
decoder) in float16 as ONNX, each with its weights in files of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor, nn

OPSET = 19


class Unet(nn.Module):
    """Takes tensors alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor, pooled: Tensor, time_ids: Tensor) -> Any:
        """Rows of latents → rows of predictions."""
        conditions = {"text_embeds": pooled, "time_ids": time_ids}
        return self.model(sample, timestep, text, added_cond_kwargs=conditions, return_dict=False)[0]


class TextEncoder(nn.Module):
    """Gives the layer that SDXL reads, and the pooled output."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids [rows, 77] → hidden, pooled."""
        output = self.model(ids, output_hidden_states=True)
        return output.hidden_states[-2], output[0]


class Decoder(nn.Module):
    """The VAE's decoder."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, latents: Tensor) -> Any:
        """Latents → pictures."""
        return self.model.decode(latents, return_dict=False)[0]


def load(name: str, folder: Path) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A module with its weights, and inputs to trace it with."""
    half: dict[str, Any] = {"dtype": torch.float16}
    if name == "unet":
        model = diffusers.UNet2DConditionModel.from_pretrained(folder, variant="fp16", torch_dtype=torch.float16)
        shapes = ((2, 4, 16, 16), (2,), (2, 77, 2048), (2, 1280), (2, 6))
        return Unet(model), tuple(torch.zeros(shape, **half) for shape in shapes)
    if name == "vae":
        vae = diffusers.AutoencoderKL.from_pretrained(folder, variant="fp16", torch_dtype=torch.float16)
        return Decoder(vae), (torch.zeros(1, 4, 16, 16, **half),)
    kind = transformers.CLIPTextModel if name == "text_encoder" else transformers.CLIPTextModelWithProjection
    encoder = kind.from_pretrained(folder, variant="fp16", dtype=torch.float16)
    return TextEncoder(encoder), (torch.zeros(1, 77, dtype=torch.int64),)


def main(checkpoint: Path, target: Path, names: list[str]) -> None:
    """Export each."""
    for name in names:
        (target / name).mkdir(parents=True, exist_ok=True)
        module, inputs = load(name, checkpoint / name)
        torch.onnx.export(module.eval(), inputs, str(target / name / "model.onnx"), opset_version=OPSET, dynamo=False)


if __name__ == "__main__":
    with torch.no_grad():
        main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
