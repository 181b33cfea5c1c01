"""A checkpoint: what it is, checked before anything is traced."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdxl_trt.errors import CheckpointError
from sdxl_trt.export.folder import read_folder
from sdxl_trt.export.parts import Component, Parts
from sdxl_trt.export.single_file import read_file
from sdxl_trt.export.tokenizers import CanonicalTokenizer
from sdxl_trt.export.vae import read_vae
from sdxl_trt.files import sha256_json
from sdxl_trt.hashes import remembered_sha256
from sdxl_trt.progress import Progress, silent
from sdxl_trt.spec import ModelSpec, TextEncoderSpec, UNetSpec, VaeSpec

__all__ = ["Checkpoint", "Component", "open_checkpoint"]

PICKLES = (".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model whose parts are there and fit together."""

    model: ModelSpec
    components: dict[str, Component]
    tokenizers: dict[str, CanonicalTokenizer]
    """By text encoder."""
    files: dict[str, Path]
    """Paths of all weights files, by the location that tensors name them by."""
    weights: dict[str, str]
    """SHA-256 of every weights file, by location."""
    licences: tuple[Path, ...]


def open_checkpoint(path: Path, vae: Path | None = None, progress: Progress = silent) -> Checkpoint:
    """Read configs, tokenizers and safetensors headers of a model, and hash its weights.

    Args:
        path: a folder in diffusers' layout, or a .safetensors file in the original one.
        vae: another VAE to put in: its folder, a model's folder, or a .safetensors file in the original layout.
        progress: told of bytes, where weights are hashed for the first time.

    Raises:
        CheckpointError: it is no SDXL in these layouts, or a part is missing or damaged.
    """
    parts = _read(path)
    if vae is not None:
        parts.components["vae"] = read_vae(vae, parts.components["vae"])
    elif not parts.components["vae"].tensors:
        raise CheckpointError(
            f"{path} holds no VAE",
            got="no first_stage_model.*",
            expected="a VAE in the checkpoint, or one of its own",
            fix="--vae PATH: a VAE's folder or .safetensors file",
        )
    _check_networks(path, parts.components)
    files = {at: file for part in parts.components.values() for at, file in sorted(part.files.items())}
    weights = {location: remembered_sha256(file, progress) for location, file in files.items()}
    content = {
        "configs": {name: part.config for name, part in parts.components.items()},
        "index": parts.index,
        "scheduler": parts.scheduler,
        "tokenizers": {name: tokenizer.json.decode() for name, tokenizer in parts.tokenizers.items()},
        "weights": weights,
    }
    return Checkpoint(
        model=_model_spec(path, parts, sha256_json(content)),
        components=parts.components,
        tokenizers=parts.tokenizers,
        files=files,
        weights=weights,
        licences=parts.licences,
    )


def _read(path: Path) -> Parts:
    if not path.is_file():
        return read_folder(path)
    if path.suffix == ".safetensors":
        return read_file(path)
    pickle = ", a pickle that runs whatever code is in it when loaded" if path.suffix in PICKLES else ""
    raise CheckpointError(
        f"{path} is not a model this tool opens",
        got=f"a {path.suffix or 'suffixless'} file{pickle}",
        expected="a folder in diffusers' layout, or a .safetensors file",
        fix="convert in a sandbox: StableDiffusionXLPipeline.from_single_file(FILE)"
        ".save_pretrained(DIR, safe_serialization=True), then give DIR",
    )


def _check_networks(path: Path, components: dict[str, Component]) -> None:
    """Refuse networks that carry the right file names and are something else."""
    unet, vae = components["unet"].config, components["vae"].config
    wanted: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "unet": (unet.get("_class_name"), ("UNet2DConditionModel",)),
        "unet's addition_embed_type": (unet.get("addition_embed_type"), ("text_time",)),
        "unet's in_channels": (unet.get("in_channels", 4), (4, 9)),
        "unet's out_channels": (unet.get("out_channels", 4), (4,)),
        "vae": (vae.get("_class_name"), ("AutoencoderKL",)),
        "vae's latent_channels": (vae.get("latent_channels"), (4,)),
    }
    for what, (got, accepted) in wanted.items():
        if got not in accepted:
            raise CheckpointError(
                f"{path} is not an SDXL model",
                got=f"{what} is {got}",
                expected=" or ".join(map(str, accepted)),
                fix="give an SDXL model",
            )


def _model_spec(path: Path, parts: Parts, content: str) -> ModelSpec:
    components, tokenizers = parts.components, parts.tokenizers
    vae = components["vae"].config
    try:
        encoders = tuple(_encoder_spec(components[name], tokenizers[name]) for name in tokenizers)
        return ModelSpec(
            name=parts.name,
            content=content,
            kind="base" if "text_encoder" in components else "refiner",
            text_encoders=encoders,
            unet=_unet_spec(components["unet"].config, encoders[-1].pooled),
            vae=VaeSpec(
                scaling_factor=float(vae["scaling_factor"]),
                force_upcast=bool(vae.get("force_upcast", True)),
                latents_mean=tuple(map(float, vae.get("latents_mean") or ())),
                latents_std=tuple(map(float, vae.get("latents_std") or ())),
                sample_size=int(vae.get("sample_size") or 1024),
            ),
            zero_negative=bool(parts.index.get("force_zeros_for_empty_prompt", True)),
            scheduler=parts.scheduler,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"a config of {path} lacks or garbles a value",
            got=repr(error),
            expected="values that fit one another",
            fix="compare it with the published one",
        ) from error


def _encoder_spec(component: Component, tokenizer: CanonicalTokenizer) -> TextEncoderSpec:
    config = component.config
    if config["eos_token_id"] not in (2, tokenizer.eos):
        raise ValueError(f"{component.name}'s eos_token_id {config['eos_token_id']} is not the tokenizer's")
    if config["vocab_size"] < tokenizer.vocabulary:
        raise ValueError(f"{component.name}'s vocab_size {config['vocab_size']} is less than its tokenizer's")
    projected = "text_projection.weight" in component.tensors
    return TextEncoderSpec(
        name=component.name,
        width=config["hidden_size"],
        hidden=config["num_hidden_layers"] + 1,
        pooled=config["projection_dim"] if projected else config["hidden_size"],
        tokens=config["max_position_embeddings"],
        vocabulary=config["vocab_size"],
        bos=tokenizer.bos,
        eos=tokenizer.eos,
        pad=tokenizer.pad,
        # transformers' CLIPTextModel: configs with the wrong end token 2 pool where the largest id is.
        pool_at="argmax" if config["eos_token_id"] == 2 else "eos",
    )


def _unet_spec(config: dict[str, Any], pooled: int) -> UNetSpec:
    sizes = config["projection_class_embeddings_input_dim"] - pooled
    time_ids, rest = divmod(sizes, config["addition_time_embed_dim"])
    if rest or time_ids < 1:
        raise ValueError(f"{sizes} channels of size embeddings are no multiple of addition_time_embed_dim")
    return UNetSpec(
        channels=config.get("in_channels", 4),
        text=config["cross_attention_dim"],
        pooled=pooled,
        time_ids=time_ids,
        guidance_embedding=config.get("time_cond_proj_dim") or 0,
        sample_size=config.get("sample_size") or 128,
    )
