"""Another VAE in a model, and VAEs as early versions of diffusers named their tensors."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import original_layout
import pytest
import single_files
from closeness import relative_error
from graph_session import GraphSession

from sdxl_trt.errors import CheckpointError
from sdxl_trt.export.checkpoint import open_checkpoint
from sdxl_trt.export.weights import read_tensor

REQUIRED = 1e-4
FORMS = ("its folder", "a model's folder", "a model's file", "its file")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path], Any]:
    """A model in one file; another one's VAE in every form; that VAE."""
    root = tmp_path_factory.mktemp("models")
    model = single_files.make("base", "float16")
    file = single_files.write_file(root / "model.safetensors", single_files.tensors_of(model))
    other = single_files.make("base", "float32", seed=1)
    folder = single_files.write_folder(root / "other", "base", other)
    shutil.copytree(folder / "vae", root / "unet")  # a name that a part of the model has too
    tensors = original_layout.vae_to_original(other["vae"])
    (root / "files").mkdir()
    forms = {
        "its folder": root / "unet",
        "a model's folder": folder,
        "a model's file": single_files.write_file(root / "files" / file.name, single_files.tensors_of(other)),
        "its file": single_files.write_file(root / "vae.safetensors", tensors),
    }
    return file, forms, other["vae"]


@pytest.mark.parametrize("form", FORMS)
def test_another_vae(models: tuple[Path, dict[str, Path], Any], form: str) -> None:
    model, forms, vae = models
    own, swapped = open_checkpoint(model), open_checkpoint(model, forms[form])
    state = vae.state_dict()
    found = single_files.matched(swapped, "vae")
    assert found.keys() == state.keys()
    for name, ref in found.items():
        assert np.array_equal(read_tensor(swapped.files, ref), state[name].numpy()), name
    assert {ref.location.split("/")[0] for ref in found.values()} == {"vae"}
    assert {ref.location for ref in swapped.components["unet"].tensors.values()} == {model.name}
    assert swapped.model.content != own.model.content
    assert swapped.model.vae == own.model.vae
    assert swapped.model.name == own.model.name


def test_the_graph_reads_the_other_vae(models: tuple[Path, dict[str, Path], Any], tmp_path: Path) -> None:
    import torch

    model, forms, vae = models
    index = single_files.export_only(model, tmp_path, "vae_decoder", vae=forms["a model's file"])
    latents = torch.randn(2, 4, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        image = vae.decode(latents / vae.config.scaling_factor).sample
    (measured,) = GraphSession(tmp_path, index, "vae_decoder").run({"latents": latents})
    assert relative_error(measured, image.numpy(), REQUIRED, "decoder of another VAE") <= REQUIRED


def test_a_file_without_vae_takes_one(models: tuple[Path, dict[str, Path], Any], tmp_path: Path) -> None:
    _, forms, _ = models
    tensors = single_files.tensors_of(single_files.make("base", "float16"))
    bare = {name: tensor for name, tensor in tensors.items() if not name.startswith("first_stage_model.")}
    path = single_files.write_file(tmp_path / "bare.safetensors", bare)
    assert open_checkpoint(path, forms["its file"]).model.vae.scaling_factor == 0.13025


def test_a_file_counts_as_one_that_overflows(models: tuple[Path, dict[str, Path], Any], tmp_path: Path) -> None:
    """Its dtype in engines is the safe one, whatever the replaced VAE's; a folder's config says."""
    _, forms, _ = models
    folder = Path(shutil.copytree(forms["a model's folder"], tmp_path / "model"))
    edit(folder / "vae" / "config.json", force_upcast=False)
    assert not open_checkpoint(folder).model.vae.force_upcast
    assert open_checkpoint(folder, forms["its file"]).model.vae.force_upcast
    assert not open_checkpoint(folder, folder).model.vae.force_upcast


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"scaling_factor": 0.18215}, ["scaling_factor 0.18215", "scaling_factor 0.13025"]),
        ({"latent_channels": 16}, ["latent_channels 16", "latent_channels 4"]),
        ({"_class_name": "AutoencoderTiny"}, ["AutoencoderTiny", "AutoencoderKL"]),
        ({"latents_mean": [0, 0, 0, 0]}, ["latents_mean"]),
    ],
)
def test_vaes_of_other_latents(
    models: tuple[Path, dict[str, Path], Any], tmp_path: Path, changes: dict[str, Any], parts: list[str]
) -> None:
    model, forms, _ = models
    folder = Path(shutil.copytree(forms["its folder"], tmp_path / "vae"))
    edit(folder / "config.json", **changes)
    refused(model, folder, "is not a VAE of this model's latents", *parts)


def refused(model: Path, vae: Path, *parts: str) -> None:
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(model, vae)
    assert all((error.value.got, error.value.expected, error.value.fix))
    for part in parts:
        assert part in str(error.value)


def test_what_is_no_vae(models: tuple[Path, dict[str, Path], Any], tmp_path: Path) -> None:
    import torch

    model, forms, vae = models
    refused(model, tmp_path / "nowhere", "holds no VAE", "no such folder or file")
    refused(model, tmp_path, "holds no VAE", "a folder without config.json")
    (tmp_path / "vae.pt").write_bytes(b"PK")
    refused(model, tmp_path / "vae.pt", "a .pt file", ".safetensors")
    lora = single_files.write_file(tmp_path / "lora.safetensors", {"x.lora_up.weight": torch.zeros(1)})
    refused(model, lora, "holds no VAE", "a LoRA")
    refused(model, forms["its folder"] / "diffusion_pytorch_model.safetensors", "diffusers' layout", "config.json")
    wide = original_layout.vae_to_original(vae) | {"decoder.conv_in.weight": torch.zeros(64, 16, 3, 3)}
    refused(model, single_files.write_file(tmp_path / "flux.safetensors", wide), "latent_channels 16")


def test_early_names_of_attention(models: tuple[Path, dict[str, Path], Any], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    _, forms, vae = models
    folder = Path(shutil.copytree(forms["a model's folder"], tmp_path / "model"))
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    early = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in load_file(weights).items():
        then = [early[now] for now in early if f".attentions.0.{now}." in name]
        renamed[re.sub(r"to_(q|k|v|out\.0)", then[0], name) if then else name] = tensor
    assert sum("proj_attn" in name for name in renamed) == 4
    save_file(renamed, weights)
    checkpoint = open_checkpoint(folder)
    for name, ref in single_files.matched(checkpoint, "vae").items():
        assert np.array_equal(read_tensor(checkpoint.files, ref), vae.state_dict()[name].numpy())
