"""Tiny SDXLs with random weights in both layouts; a single file does not say that heads are 64 wide: so these are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import original_layout

from sdxl_trt.export.clip_bpe import PADS, clip_vocabulary
from sdxl_trt.export.published import published
from sdxl_trt.exported import ExportIndex, write_index

if TYPE_CHECKING:
    from sdxl_trt.export.checkpoint import Checkpoint
    from sdxl_trt.export.safetensors import TensorRef

UNETS: dict[str, dict[str, Any]] = {
    "base": {"transformer_layers_per_block": [1, 1, 2]},
    "refiner": {
        "block_out_channels": [64, 64, 128, 128],
        "attention_head_dim": [1, 1, 2, 2],
        "transformer_layers_per_block": 1,
    },
    # https://huggingface.co/segmind/SSD-1B and Segmind-Vega: fewer layers, no attention in the middle
    "ssd": {
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": [1, [2, 2], [1, 1]],
        "reverse_transformer_layers_per_block": [[1, 1, 3], [2, 1, 1], 1],
    },
    "vega": {
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": [1, [1, 1], [2, 2]],
        "reverse_transformer_layers_per_block": [[2, 2, 2], [1, 1, 1], 1],
    },
    # https://huggingface.co/etri-vilab/koala-700m: one layer in each level, no middle
    "koala": {
        "layers_per_block": 1,
        "mid_block_type": None,
        "transformer_layers_per_block": [1, 1, 2],
        "reverse_transformer_layers_per_block": [[2, 2], [1, 1], 1],
    },
    "inpaint": {"in_channels": 9, "transformer_layers_per_block": [1, 1, 1]},
}
"""Differences of each kind's UNet from SDXL's, at tiny widths."""


def make(kind: str, dtype: str, seed: int = 0) -> dict[str, Any]:
    """Networks by component, and the configs of the whole."""
    import diffusers
    import torch
    import transformers

    torch.manual_seed(seed)
    configs = published("refiner" if kind == "refiner" else "base")
    clip = {"intermediate_size": 96, "num_hidden_layers": 2}
    clip_1 = {"hidden_size": 64, "num_attention_heads": 1, "projection_dim": 64}
    clip_2 = {"hidden_size": 128, "num_attention_heads": 2, "projection_dim": 64}
    unet = {
        "block_out_channels": [64, 64, 128],
        "attention_head_dim": [1, 1, 2],
        "cross_attention_dim": 128 if kind == "refiner" else 192,
        "projection_class_embeddings_input_dim": 64 + 256 * (5 if kind == "refiner" else 6),
    }
    vae = {"block_out_channels": [32, 32, 64, 64], "layers_per_block": 1}
    networks = {
        "unet": diffusers.UNet2DConditionModel.from_config(configs["unet"] | unet | UNETS[kind]),
        "vae": diffusers.AutoencoderKL.from_config(configs["vae"] | vae),
        "text_encoder_2": transformers.CLIPTextModelWithProjection(
            transformers.CLIPTextConfig(**(configs["text_encoder_2"] | clip | clip_2))
        ),
    }
    if kind != "refiner":
        config = transformers.CLIPTextConfig(**(configs["text_encoder"] | clip | clip_1))
        networks["text_encoder"] = transformers.CLIPTextModel(config)
    return {name: network.to(getattr(torch, dtype)).eval() for name, network in networks.items()}


def write_folder(folder: Path, kind: str, networks: dict[str, Any]) -> Path:
    """diffusers' layout."""
    configs = published("refiner" if kind == "refiner" else "base")
    for name, network in networks.items():
        network.save_pretrained(folder / name)
        if "encoder" in name:
            write_tokenizer(folder / name.replace("text_encoder", "tokenizer"), name)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(configs["scheduler"]))
    (folder / "model_index.json").write_text(json.dumps(configs["model_index"]))
    return folder


def write_tokenizer(folder: Path, encoder: str) -> None:
    """A tokenizer folder as SDXL's own repository has it."""
    vocabulary, merges = clip_vocabulary()
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
    special = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    start, end = ({"content": token} | special for token in ("<|startoftext|>", "<|endoftext|>"))
    config = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": PADS[encoder]}
    (folder / "special_tokens_map.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77})
    )


def tensors_of(networks: dict[str, Any]) -> dict[str, Any]:
    """Under the names of a single file, with what such files carry besides."""
    import torch

    tensors = original_layout.original(**{name: networks.get(part) for name, part in _PARTS.items()})
    encoder = next(name for name in tensors if name.endswith("model.positional_embedding")).rpartition(".")[0]
    extra = {
        f"{encoder}.logit_scale": torch.tensor(4.6),
        "model_ema.decay": torch.tensor(0.9999),
        "denoiser.sigmas": torch.linspace(0, 14, 1000),
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
    }
    if "text_encoder" not in networks:
        del extra["conditioner.embedders.0.transformer.text_model.embeddings.position_ids"]
    return tensors | extra


_PARTS = {"unet": "unet", "vae": "vae", "encoder": "text_encoder", "encoder_2": "text_encoder_2"}


def write_file(path: Path, tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> Path:
    """A .safetensors file."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    return path


def matched(checkpoint: Checkpoint, name: str) -> dict[str, TensorRef]:
    """The tensors of a component, by its module's parameters."""
    from sdxl_trt.export.trace import parameter_shapes
    from sdxl_trt.export.weights import match_parameters

    component = checkpoint.components[name]
    return match_parameters(name, parameter_shapes(component), component.tensors)


def export_only(
    model: Path,
    folder: Path,
    *graphs: str,
    vae: Path | None = None,
    kept: ExportIndex | None = None,
    precision: str = "float32",
) -> ExportIndex:
    """An export of some graphs, to save time; `kept` is the index of an earlier one."""
    from sdxl_trt.export.checkpoint import open_checkpoint
    from sdxl_trt.export.run import _Work

    checkpoint = open_checkpoint(model, vae)
    tensors = {name: matched(checkpoint, name) for name in checkpoint.components}
    work = _Work(checkpoint=checkpoint, tensors=tensors, folder=folder, kept=kept)
    work.keep_finished()
    for graph in graphs:
        work.graph(graph, precision)
    work.write_files()
    write_index(folder, work.index())
    return work.index()
