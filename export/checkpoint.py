"""A checkpoint folder in diffusers' layout: what it is, checked before anything is traced."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdxl_trt.errors import CheckpointError
from sdxl_trt.export.safetensors import TensorRef, component_tensors
from sdxl_trt.export.tokenizers import CanonicalTokenizer, canonical_tokenizer
from sdxl_trt.files import sha256_json, sha256_of
from sdxl_trt.spec import ModelSpec, TextEncoderSpec, UNetSpec, VaeSpec

PIPELINES = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline")
"""Values of model_index.json's _class_name that are an SDXL."""

ENCODERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
"""Text encoders and the folders of their tokenizers."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """One network of the checkpoint."""

    name: str
    config: dict[str, Any]
    tensors: dict[str, TensorRef]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A folder whose parts are there and fit together."""

    root: Path
    model: ModelSpec
    components: dict[str, Component]
    tokenizers: dict[str, CanonicalTokenizer]
    """By text encoder."""
    weights: dict[str, str]
    """SHA-256 of every weights file, by location."""
    licences: tuple[Path, ...]


def open_checkpoint(root: Path) -> Checkpoint:
    """Read configs, tokenizers and safetensors headers of a diffusers folder, and hash its weights.

    Raises:
        CheckpointError: it is no SDXL in diffusers' layout, or a part is missing or damaged.
    """
    index = _read_index(root)
    encoders = [name for name in ENCODERS if (index.get(name) or [None])[0]]
    names = [*encoders, "unet", "vae"]
    components = {name: _component(root, name) for name in names}
    _check_networks(root, components)
    tokenizers = {name: canonical_tokenizer(root / ENCODERS[name]) for name in encoders}
    locations = sorted({ref.location for part in components.values() for ref in part.tensors.values()})
    weights = {location: sha256_of(root / location) for location in locations}
    scheduler = _read_json(root / "scheduler" / "scheduler_config.json")
    content = {
        "configs": {name: part.config for name, part in components.items()},
        "index": index,
        "scheduler": scheduler,
        "tokenizers": {name: tokenizer.json.decode() for name, tokenizer in tokenizers.items()},
        "weights": weights,
    }
    return Checkpoint(
        root=root,
        model=_model_spec(root, index, components, tokenizers, scheduler, sha256_json(content)),
        components=components,
        tokenizers=tokenizers,
        weights=weights,
        licences=tuple(sorted(p for p in root.iterdir() if p.is_file() and p.name.lower().startswith("licen"))),
    )


def _read_index(root: Path) -> dict[str, Any]:
    if root.is_file():
        raise _is_a_file(root)
    if not (root / "model_index.json").is_file():
        raise CheckpointError(
            f"{root} is not a model folder",
            got="no model_index.json" if root.is_dir() else "no such folder",
            expected="a folder in diffusers' layout, or 'demo'",
            fix="check the path; pipeline.save_pretrained(DIR) writes such a folder",
        )
    index = _read_json(root / "model_index.json")
    if index.get("_class_name") not in PIPELINES:
        raise CheckpointError(
            f"{root} is not an SDXL model",
            got=f"a {index.get('_class_name')}",
            expected=" or ".join(PIPELINES),
            fix="this tool builds SDXL base, refiner, Turbo and inpainting models",
        )
    return index


def _is_a_file(path: Path) -> CheckpointError:
    if path.suffix == ".safetensors":
        return CheckpointError(
            f"{path} is a single-file checkpoint, which this version does not read",
            expected="a folder in diffusers' layout",
            fix="StableDiffusionXLPipeline.from_single_file(FILE).save_pretrained(DIR), then give DIR",
        )
    return CheckpointError(
        f"{path} is not a model this tool opens",
        got=f"a {path.suffix or 'suffixless'} file"
        + (
            ", a pickle that runs whatever code is in it when loaded" if path.suffix in (".ckpt", ".pt", ".bin") else ""
        ),
        expected="a folder in diffusers' layout, of safetensors",
        fix="convert in a sandbox: StableDiffusionXLPipeline.from_single_file(FILE)"
        ".save_pretrained(DIR, safe_serialization=True), then give DIR",
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read", got=str(error), expected="a JSON object", fix="finish or repeat the download"
        ) from error
    return value


def _component(root: Path, name: str) -> Component:
    config = _read_json(root / name / "config.json")
    return Component(name=name, config=config, tensors=component_tensors(root, name))


def _check_networks(root: Path, components: dict[str, Component]) -> None:
    """Refuse networks that carry the right file names and are something else."""
    unet, vae = components["unet"].config, components["vae"].config
    wanted = {
        "unet": (unet.get("_class_name"), "UNet2DConditionModel"),
        "unet's addition_embed_type": (unet.get("addition_embed_type"), "text_time"),
        "vae": (vae.get("_class_name"), "AutoencoderKL"),
        "vae's latent_channels": (vae.get("latent_channels"), 4),
    }
    for what, (got, expected) in wanted.items():
        if got != expected:
            raise CheckpointError(
                f"{root} is not an SDXL model", got=f"{what} is {got}", expected=str(expected), fix="give an SDXL model"
            )


def _model_spec(
    root: Path,
    index: dict[str, Any],
    components: dict[str, Component],
    tokenizers: dict[str, CanonicalTokenizer],
    scheduler: dict[str, Any],
    content: str,
) -> ModelSpec:
    vae = components["vae"].config
    try:
        encoders = tuple(_encoder_spec(components[name], tokenizers[name]) for name in tokenizers)
        return ModelSpec(
            name=root.resolve().name,
            content=content,
            kind="base" if "text_encoder" in components else "refiner",
            text_encoders=encoders,
            unet=_unet_spec(components["unet"].config, encoders[-1].pooled),
            vae=VaeSpec(
                scaling_factor=float(vae["scaling_factor"]),
                force_upcast=bool(vae.get("force_upcast", True)),
                latents_mean=tuple(map(float, vae.get("latents_mean") or ())),
                latents_std=tuple(map(float, vae.get("latents_std") or ())),
            ),
            zero_negative=bool(index.get("force_zeros_for_empty_prompt", True)),
            scheduler=scheduler,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"a config in {root} lacks or garbles a value", got=repr(error), fix="compare it with the published one"
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
        channels=config["in_channels"],
        text=config["cross_attention_dim"],
        pooled=pooled,
        time_ids=time_ids,
        guidance_embedding=config.get("time_cond_proj_dim") or 0,
        sample_size=config["sample_size"],
    )
