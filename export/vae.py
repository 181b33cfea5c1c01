"""Another VAE in a model: from a folder, or from a file in the original layout."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from sdxl_trt.errors import CheckpointError
from sdxl_trt.export.folder import read_component
from sdxl_trt.export.layout import VAE, not_a
from sdxl_trt.export.original import vae_tensors
from sdxl_trt.export.parts import Component
from sdxl_trt.export.published import vae_config
from sdxl_trt.export.safetensors import read_header
from sdxl_trt.export.single_file import expecting_whole, shapes_of, under

EXPECTED = "a VAE's folder (config.json and .safetensors), a model's folder, or a .safetensors file"

_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")


def read_vae(path: Path, replaced: Component) -> Component:
    """A VAE to take the place of `replaced`.

    A file has no config: it is taken for a VAE of the same latents, and one that overflows in fp16, as SDXL's own.

    Raises:
        CheckpointError: there is no VAE, or it has other latents than those that the model was trained on.
    """
    vae = _from_file(path, replaced) if path.is_file() else _from_folder(path)
    _expect_same_latents(path, vae.config, replaced.config)
    # Locations become those of this part of the model, whatever the folder was called.
    at = {location: f"vae/{file.name}" for location, file in vae.files.items()}
    return Component(
        name="vae",
        config=vae.config,
        tensors={name: dataclasses.replace(ref, location=at[ref.location]) for name, ref in vae.tensors.items()},
        files={at[location]: file for location, file in vae.files.items()},
    )


def _from_folder(path: Path) -> Component:
    for root, name in ((path, "vae"), (path.absolute().parent, path.absolute().name)):
        if (root / name / "config.json").is_file():
            return read_component(root, name)
    raise CheckpointError(
        f"{path} holds no VAE",
        got="a folder without config.json and vae/config.json" if path.is_dir() else "no such folder or file",
        expected=EXPECTED,
        fix="check the path",
    )


def _from_file(path: Path, replaced: Component) -> Component:
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path} is not a VAE this tool opens",
            got=f"a {path.suffix or 'suffixless'} file",
            expected=EXPECTED,
            fix="give its .safetensors",
        )
    header = read_header(path.parent, path.name)
    tensors = under(header, VAE) or {name: ref for name, ref in header.items() if name.startswith(_PARTS)}
    if any(name.startswith("encoder.down_blocks.") for name in tensors):
        raise CheckpointError(
            f"{path} is a VAE in diffusers' layout, without its config",
            got="a file",
            expected=EXPECTED,
            fix="give the folder that it came in, with its config.json",
        )
    if "encoder.conv_in.weight" not in tensors:
        raise not_a(f"{path} holds no VAE", header, expected=EXPECTED)
    with expecting_whole(path):
        config = vae_config(replaced.config | {"force_upcast": True}, shapes_of(tensors))
        tensors = vae_tensors(tensors, config)
    return Component(name="vae", config=config, tensors=tensors, files={path.name: path.absolute()})


def _expect_same_latents(path: Path, config: dict[str, Any], replaced: dict[str, Any]) -> None:
    """Refuse VAEs that the UNet's latents mean nothing to: SD 1's and Flux's look alike."""
    keys = ("_class_name", "latent_channels", "scaling_factor", "latents_mean", "latents_std")
    wrong = [key for key in keys if config.get(key) != replaced.get(key)]
    if wrong:
        raise CheckpointError(
            f"{path} is not a VAE of this model's latents",
            got=", ".join(f"{key} {config.get(key)}" for key in wrong),
            expected=", ".join(f"{key} {replaced.get(key)}" for key in wrong),
            fix="give a VAE for SDXL",
        )
