"""Configs for single files, which have none: SDXL's published ones, with every size as the file's tensors have it.

The published ones are those of stabilityai/stable-diffusion-xl-base-1.0 and -refiner-1.0. What no shape tells is the
same in all SDXLs: attention heads are 64 wide, groups of a norm 32.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEAD = 64
"""Channels of an attention head, in UNets and text encoders."""

Shapes = Mapping[str, tuple[int, ...]]
Config = dict[str, Any]


def published(kind: str) -> dict[str, Config]:
    """model_index, scheduler and the components' configs of 'base' or 'refiner'."""
    configs: dict[str, Config] = json.loads(Path(__file__).with_name("data").joinpath(f"sdxl-{kind}.json").read_bytes())
    return configs


def unet_config(config: Config, shapes: Shapes) -> Config:
    """Of a UNet in the original layout (names without their prefix), whatever its blocks: SSD-1B's and Vega's too.

    Raises:
        KeyError: a tensor that every SDXL's UNet has is missing.
    """
    levels: list[list[int]] = [[]]
    for block in itertools.count(1):
        if f"input_blocks.{block}.0.op.weight" in shapes:
            levels.append([])
        elif f"input_blocks.{block}.0.out_layers.3.weight" in shapes:
            levels[-1].append(block)
        else:
            break
    per_level = len(levels[0]) + 1  # the way up has one more in each
    down = [[_depth(shapes, f"input_blocks.{block}.1") for block in blocks] for blocks in levels]
    up = [
        [_depth(shapes, f"output_blocks.{block}.1") for block in range(start, start + per_level)]
        for start in range(0, per_level * len(levels), per_level)
    ]
    middle = _depth(shapes, "middle_block.1")
    deepest = max(down[-1]) or middle or 1  # diffusers gives the middle as many layers as the level above it
    widths = [shapes[f"input_blocks.{blocks[0]}.0.out_layers.3.weight"][0] for blocks in levels]
    return (
        config
        | {
            "in_channels": shapes["input_blocks.0.0.weight"][1],
            "out_channels": shapes["out.2.weight"][0],
            "layers_per_block": per_level - 1,
            "block_out_channels": widths,
            "attention_head_dim": [width // HEAD for width in widths],  # diffusers' name for the number of heads
            "down_block_types": ["CrossAttnDownBlock2D" if any(depths) else "DownBlock2D" for depths in down],
            "mid_block_type": _middle_type(shapes, middle),
            "up_block_types": ["CrossAttnUpBlock2D" if any(depths) else "UpBlock2D" for depths in up],
            "transformer_layers_per_block": [depths if any(depths) else 1 for depths in down[:-1]]
            + [down[-1] if any(down[-1]) else deepest],
            "reverse_transformer_layers_per_block": [depths if any(depths) else 1 for depths in up],
            "cross_attention_dim": next(
                shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")
            ),
            "projection_class_embeddings_input_dim": shapes["label_emb.0.0.weight"][1],
        }
    )


def _middle_type(shapes: Shapes, depth: int) -> str | None:
    if depth:
        return "UNetMidBlock2DCrossAttn"
    return "UNetMidBlock2D" if "middle_block.0.out_layers.3.weight" in shapes else None


def _depth(shapes: Shapes, attention: str) -> int:
    """How many transformer layers there are under a name."""
    return _count(shapes, attention + ".transformer_blocks.{}.norm1.weight")


def _count(shapes: Shapes, pattern: str) -> int:
    return next(n for n in itertools.count() if pattern.format(n) not in shapes)


def vae_config(config: Config, shapes: Shapes) -> Config:
    """Of a VAE in the original layout (names without their prefix).

    Raises:
        KeyError: a tensor that every VAE has is missing.
    """
    levels = _count(shapes, "encoder.down.{}.block.0.conv1.weight")
    return config | {
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "layers_per_block": _count(shapes, "encoder.down.0.block.{}.conv1.weight"),
        "block_out_channels": [shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def encoder_config(config: Config, shapes: Shapes) -> Config:
    """Of a text encoder in diffusers' layout.

    Raises:
        KeyError: a tensor that every CLIP has is missing.
    """
    vocabulary, width = shapes["text_model.embeddings.token_embedding.weight"]
    projects = config["architectures"] == ["CLIPTextModelWithProjection"]
    return config | {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0],
        "max_position_embeddings": shapes["text_model.embeddings.position_embedding.weight"][0],
        "num_attention_heads": width // HEAD,
        "num_hidden_layers": _count(shapes, "text_model.encoder.layers.{}.mlp.fc1.weight"),
        "projection_dim": shapes["text_projection.weight"][0] if projects else width,
    }
