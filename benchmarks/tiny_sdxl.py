"""Tiny SDXLs of other widths than the demo model's, with random weights, in the layout people have them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sdxl_trt.paths import DEMO_CHECKPOINT

POOLED = 56
"""Width of the pooled text embedding."""


def make(
    folder: Path,
    *,
    refiner: bool = False,
    levels: int = 2,
    channels: int = 4,
    guidance_embedding: int | None = None,
    prediction: str = "epsilon",
    legacy_pooling: bool = True,
    half: bool = False,
    shard: str = "10GB",
    unet_config: dict[str, Any] | None = None,
    vae_config: dict[str, Any] | None = None,
    like: Path | None = None,
    seed: int = 0,
) -> Path:
    """Write a checkpoint of about 2 M parameters; returns `folder`. Configs replace what else would be in them.

    `like` is a checkpoint in float16, of which it has the second text encoder and the VAE.
    """
    import diffusers
    import torch
    import transformers

    torch.manual_seed(seed)
    tokenizers = [transformers.CLIPTokenizer.from_pretrained(DEMO_CHECKPOINT / n) for n in ("tokenizer", "tokenizer_2")]
    eos = 2 if legacy_pooling else tokenizers[0].eos_token_id
    encoder = transformers.CLIPTextModel(_clip_config(48, 2, "quick_gelu", eos))
    encoder_2 = transformers.CLIPTextModelWithProjection(_clip_config(80, 3, "gelu", eos, projection_dim=POOLED))
    time_ids = 5 if refiner else 6
    unet: dict[str, Any] = {
        "sample_size": 16,
        "in_channels": channels,
        "block_out_channels": (32, 48, 64)[:levels],
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")[:levels],
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")[-levels:],
        "transformer_layers_per_block": [1, 1, 2][:levels],
        "attention_head_dim": [2, 3, 4][:levels],
        "norm_num_groups": 8,
        "cross_attention_dim": 80 if refiner else 128,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 24,
        "projection_class_embeddings_input_dim": POOLED + 24 * time_ids,
        "time_cond_proj_dim": guidance_embedding,
    }
    vae: dict[str, Any] = {
        "block_out_channels": (8, 16, 16, 24),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "sample_size": 128,
        "scaling_factor": 0.4,
        "force_upcast": False,
    }
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        prediction_type=prediction,
    )
    parts: dict[str, Any] = {"text_encoder_2": encoder_2, "tokenizer_2": tokenizers[1], "scheduler": scheduler}
    parts["unet"] = diffusers.UNet2DConditionModel(**unet | (unet_config or {}))
    parts["vae"] = diffusers.AutoencoderKL(**vae | (vae_config or {}))
    if like:
        for name in ("text_encoder_2", "vae"):
            parts[name] = type(parts[name]).from_pretrained(like / name, variant="fp16", dtype=torch.float32)
    extra: dict[str, Any]
    if refiner:
        kind, extra = diffusers.StableDiffusionXLImg2ImgPipeline, {"text_encoder": None, "tokenizer": None}
        extra |= {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False}
    else:
        kind = diffusers.StableDiffusionXLInpaintPipeline if channels > 4 else diffusers.StableDiffusionXLPipeline
        extra = {"text_encoder": encoder, "tokenizer": tokenizers[0]}
    pipeline = kind(**parts, **extra)
    if half:
        pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder, variant="fp16" if half else None, max_shard_size=shard)
    for name in ("tokenizer_2",) if refiner else ("tokenizer", "tokenizer_2"):
        shutil.copytree(DEMO_CHECKPOINT / name, folder / name, dirs_exist_ok=True)
    return folder


def _clip_config(width: int, layers: int, act: str, eos: int, **more: Any) -> Any:
    import transformers

    return transformers.CLIPTextConfig(
        vocab_size=604,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        hidden_act=act,
        eos_token_id=eos,
        bos_token_id=602,
        pad_token_id=1,
        **more,
    )
