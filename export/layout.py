"""What a single safetensors file is, told from the names of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from sdxl_trt.errors import CheckpointError

UNET = "model.diffusion_model."
VAE = "first_stage_model."
ENCODERS = {
    "text_encoder": "conditioner.embedders.0.transformer.",
    "text_encoder_2": "conditioner.embedders.1.model.",
}
REFINER_ENCODERS = {"text_encoder_2": "conditioner.embedders.0.model."}
"""What the names of each part's tensors start with in the layout of Stability AI's generative-models."""

WHOLE = "the one checkpoint that holds all parts: model.diffusion_model.*, conditioner.*, first_stage_model.*"

_OTHERS = (
    ("a LoRA", r"(^|[._])(lora|lokr|hada)_", "give the checkpoint that it is for"),
    ("a textual inversion embedding", r"^(clip_[lg]|emb_params|string_to_param\..*)$", "give a checkpoint"),
    ("a ControlNet", r"^control_model\.|controlnet_|input_hint_block\.", "give a checkpoint"),
    ("an IP-Adapter", r"^(ip_adapter|image_proj)\.", "give a checkpoint"),
    ("a Stable Diffusion 3", r"joint_blocks\.", "give an SDXL"),
    ("a Flux", r"(double|single)_(transformer_)?blocks\.", "give an SDXL"),
    ("a Stable Diffusion 1 or 2", r"^cond_stage_model\.", "give an SDXL"),
    (
        "a UNet alone, in diffusers' layout",
        r"^(unet\.)?down_blocks\.",
        "put it into an SDXL's folder as unet/diffusion_pytorch_model.safetensors, and give the folder",
    ),
    ("a UNet without text encoders", r"^(model\.diffusion_model\.)?input_blocks\.", f"give {WHOLE}"),
    ("a VAE alone", r"^(first_stage_model\.|vae\.)?(en|de)coder\.(conv_in|down|up)", "give a model, and this as --vae"),
    ("a text encoder alone", r"text_model\.|resblocks\.", f"give {WHOLE}"),
)
"""What else such a file may be, by a pattern that one of its names has, and what to do; the first that fits counts."""


def encoder_prefixes(names: Iterable[str], path: Path) -> dict[str, str]:
    """The text encoders of an SDXL file in the original layout, and what their tensors' names start with.

    Raises:
        CheckpointError: it is something else; says what.
    """
    known = set(names)
    starts = [p for p in (UNET, *ENCODERS.values(), *REFINER_ENCODERS.values()) if any(n.startswith(p) for n in known)]
    for encoders in (ENCODERS, REFINER_ENCODERS):
        if starts == [UNET, *encoders.values()] and f"{UNET}label_emb.0.0.weight" in known:
            return encoders
    raise not_a(f"{path} is not an SDXL checkpoint", known, expected=f"an SDXL in the original layout: {WHOLE}")


def not_a(what: str, names: Iterable[str], *, expected: str) -> CheckpointError:
    """The refusal of a file by what it is."""
    for kind, pattern, fix in _OTHERS:
        if any(re.search(pattern, name) for name in names):
            return CheckpointError(what, got=kind, expected=expected, fix=fix)
    some = ", ".join(sorted(names)[:3]) or "none"
    return CheckpointError(what, got=f"tensors named {some}", expected=expected, fix="give another file")
