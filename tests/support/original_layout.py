"""SDXLs in the original layout: diffusers' and transformers' names turned back into those of real single files."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPENCLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "fc1": "c_fc", "fc2": "c_proj", "self_attn": "attn"}


def original(unet: Any, vae: Any, encoder: Any, encoder_2: Any) -> dict[str, Any]:
    """Tensors of a whole model by their names in a single file; encoder is None for a refiner."""
    tensors = {f"model.diffusion_model.{name}": tensor for name, tensor in unet_to_original(unet).items()}
    tensors |= {f"first_stage_model.{name}": tensor for name, tensor in vae_to_original(vae).items()}
    if encoder is not None:
        state = {name.removeprefix("text_model."): tensor for name, tensor in encoder.state_dict().items()}
        tensors |= {f"conditioner.embedders.0.transformer.text_model.{name}": t for name, t in state.items()}
    place = 0 if encoder is None else 1
    return tensors | {f"conditioner.embedders.{place}.model.{n}": t for n, t in openclip(encoder_2).items()}


def unet_to_original(unet: Any) -> dict[str, Any]:
    """Without the prefix."""
    per_level = unet.config.layers_per_block + 1
    state, result = unet.state_dict(), {}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        if part == "mid_block":
            kind, number, rest = rest.split(".", 2)
            new = f"middle_block.{2 * int(number) if kind == 'resnets' else 1}.{_resnet(kind, rest)}"
        elif part in ("down_blocks", "up_blocks"):
            new = _block(part, rest, per_level, f"{part}.{rest[0]}.attentions.0.norm.weight" in state)
        else:
            module, _, kind = name.rpartition(".")
            new = f"{_UNET[module]}.{kind}"
        result[new] = tensor
    return result


def _block(part: str, rest: str, per_level: int, attends: bool) -> str:
    level, kind, number, rest = rest.split(".", 3)
    first = int(level) * per_level
    if kind == "downsamplers":
        return f"input_blocks.{first + per_level}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        return f"output_blocks.{first + per_level - 1}.{2 if attends else 1}.{rest}"
    side = (
        f"input_blocks.{first + 1 + int(number)}" if part == "down_blocks" else f"output_blocks.{first + int(number)}"
    )
    return f"{side}.{0 if kind == 'resnets' else 1}.{_resnet(kind, rest)}"


def _resnet(kind: str, rest: str) -> str:
    layer, _, parameter = rest.partition(".")
    return f"{_RESNET[layer]}.{parameter}" if kind == "resnets" else rest


def vae_to_original(vae: Any) -> dict[str, Any]:
    """Without the prefix; the projections of its attention are 1 × 1 convolutions."""
    last = len(vae.config.block_out_channels) - 1
    result = {}
    for name, tensor in vae.state_dict().items():
        new = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
        new = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{last - int(m[1])}.block", new)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = new.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        if "mid_block.attentions.0." in new:
            layer, _, parameter = new.partition("mid_block.attentions.0.")[2].rpartition(".")
            new = f"{new.split('.')[0]}.mid.attn_1.{_VAE_ATTENTION[layer]}.{parameter}"
        result[new] = tensor[:, :, None, None] if "attn_1" in new and tensor.ndim == 2 else tensor
    return result


def openclip(encoder: Any) -> dict[str, Any]:
    """Without the prefix: joint input projections, the last projection the other way round."""
    import torch

    state = {name.removeprefix("text_model."): tensor for name, tensor in encoder.state_dict().items()}
    result = {
        "token_embedding.weight": state.pop("embeddings.token_embedding.weight"),
        "positional_embedding": state.pop("embeddings.position_embedding.weight"),
        "text_projection": state.pop("text_projection.weight").T.contiguous(),
        "ln_final.weight": state.pop("final_layer_norm.weight"),
        "ln_final.bias": state.pop("final_layer_norm.bias"),
    }
    for name, tensor in state.items():
        if match := re.fullmatch(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", name):
            joint = [state[name.replace("q_proj", f"{which}_proj")] for which in "qkv"]
            result[f"transformer.resblocks.{match[1]}.attn.in_proj_{match[2]}"] = torch.cat(joint)
        elif not re.search(r"[kv]_proj", name) and name.startswith("encoder.layers."):
            new = name.replace("encoder.layers", "transformer.resblocks")
            for ours, theirs in _OPENCLIP.items():
                new = new.replace(f".{ours}.", f".{theirs}.")
            result[new] = tensor
    return result


def write_sparse(path: Path, tensors: dict[str, Any]) -> None:
    """A safetensors file with a true header for (meta) tensors, all fp16, and a hole for their values."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        length = tensor.numel() * 2
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [end, end + length]}
        end += length
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
