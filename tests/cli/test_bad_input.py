"""Everything a user can get wrong: one clear message, the right exit status, nothing half-written."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdxl_trt.paths import DEMO_CHECKPOINT

Command = Callable[..., Any]
UNET = "unet/diffusion_pytorch_model.fp16.safetensors"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The demo checkpoint, to be damaged."""
    return Path(shutil.copytree(DEMO_CHECKPOINT, tmp_path / "model"))


@pytest.fixture
def bundle(demo_bundle: Path, tmp_path: Path) -> Path:
    """The demo bundle, to be damaged."""
    return Path(shutil.copytree(demo_bundle, tmp_path / "bundle"))


def edit(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value))


def refused(outcome: Any, status: int, *parts: str) -> None:
    """One message with all these parts, on standard error alone, without a traceback."""
    assert outcome.status == status, outcome
    assert outcome.err.count("error:") + outcome.err.count("Error:") == 1
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    for part in parts:
        assert part in outcome.err, f"{part!r} is not in: {outcome.err}"


def refused_build(sdxl_trt: Command, model: object, *parts: str) -> None:
    before = set(Path().rglob("*"))
    refused(sdxl_trt("build", model, "--gpu", "cpu", "-o", "engines"), 1, *parts)
    assert set(Path().rglob("*")) == before


# Checkpoints


def test_missing_weights(sdxl_trt: Command, checkpoint: Path) -> None:
    (checkpoint / UNET).unlink()
    refused_build(sdxl_trt, checkpoint, "has no weights", "unet")


def test_missing_shard(sdxl_trt: Command, checkpoint: Path) -> None:
    index = checkpoint / "unet" / "diffusion_pytorch_model.safetensors.index.fp16.json"
    index.write_text(
        json.dumps({"weight_map": {"conv_in.weight": "diffusion_pytorch_model.fp16-00001-of-2.safetensors"}})
    )
    refused_build(sdxl_trt, checkpoint, "cannot be read as safetensors", "00001-of-2")


def test_truncated_weights(sdxl_trt: Command, checkpoint: Path) -> None:
    path = checkpoint / UNET
    path.write_bytes(path.read_bytes()[:-1])
    refused_build(sdxl_trt, checkpoint, "cannot be read as safetensors", "download it again")


@pytest.mark.parametrize("change", ["outside", "overlap", "length"])
def test_header_lies(sdxl_trt: Command, checkpoint: Path, change: str) -> None:
    path = checkpoint / UNET
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    first, second = [name for name in header if name != "__metadata__"][:2]
    offsets = header[second]["data_offsets"]
    if change == "outside":
        header[second]["data_offsets"] = [offsets[0] + 10**9, offsets[1] + 10**9]
    elif change == "overlap":
        header[second]["data_offsets"] = header[first]["data_offsets"]
    else:
        header[second]["shape"] = [7]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
    refused_build(sdxl_trt, checkpoint, "cannot be read as safetensors")


def test_tensor_missing(sdxl_trt: Command, checkpoint: Path) -> None:
    edit(checkpoint / "vae" / "config.json", lambda config: config.update(layers_per_block=2))
    refused_build(sdxl_trt, checkpoint, "the weights lack", "vae")


def test_pickled_weights(sdxl_trt: Command, checkpoint: Path) -> None:
    (checkpoint / UNET).rename(checkpoint / "unet" / "diffusion_pytorch_model.bin")
    refused_build(sdxl_trt, checkpoint, "pickle", "safe_serialization=True")


def test_another_pipeline(sdxl_trt: Command, checkpoint: Path) -> None:
    edit(checkpoint / "model_index.json", lambda index: index.update(_class_name="FluxPipeline"))
    refused_build(sdxl_trt, checkpoint, "is not an SDXL model", "FluxPipeline", "StableDiffusionXLPipeline")


def test_another_unet(sdxl_trt: Command, checkpoint: Path) -> None:
    edit(checkpoint / "unet" / "config.json", lambda config: config.update(addition_embed_type=None))
    refused_build(sdxl_trt, checkpoint, "is not an SDXL model", "addition_embed_type", "text_time")


def test_ckpt(sdxl_trt: Command, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"PK")
    refused_build(sdxl_trt, "model.ckpt", ".ckpt", "from_single_file", "save_pretrained")


def test_not_a_model(sdxl_trt: Command, tmp_path: Path) -> None:
    refused_build(sdxl_trt, tmp_path / "nowhere", "no such folder")


def test_files_that_are_no_model(sdxl_trt: Command, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"lora_unet_x.lora_down.weight": np.zeros((1, 1), np.float32)}, tmp_path / "lora.safetensors")
    refused_build(sdxl_trt, "lora.safetensors", "a LoRA", "original layout", "the checkpoint that it is for")
    refused(sdxl_trt("export", "demo", "--vae", "lora.safetensors", "-o", "out"), 1, "holds no VAE", "a LoRA")
    refused(sdxl_trt("build", "demo", "--gpu", "cpu", "--vae", "nowhere"), 1, "holds no VAE", "no such folder")


# Building


def test_unknown_gpu(sdxl_trt: Command) -> None:
    refused(sdxl_trt("build", "demo", "--gpu", "rtx3O60"), 2, "unknown GPU", "did you mean rtx3060?")


def test_flavour_that_cannot_serve_the_gpu(sdxl_trt: Command) -> None:
    outcome = sdxl_trt("build", "demo", "--gpu", "h100", "--flavour", "tensorrt-rtx")
    refused(outcome, 2, "cannot serve", "SM 90", "tensorrt")


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_flavour_that_is_not_here(sdxl_trt: Command) -> None:
    refused(
        sdxl_trt("build", "demo", "--gpu", "h100"),
        1,
        "tensorrt",
        "on a host with that GPU: pip install 'sdxl-trt[tensorrt]'",
    )


@pytest.mark.parametrize(
    ("option", "value", "parts"),
    [
        ("--size", "100x128", ["not a multiple of 8", "96x128"]),
        ("--size", "0x128", ["not a multiple of 8"]),
        ("--size", "big", ["WIDTHxHEIGHT"]),
        ("--sizes", "128x128", ["MIN..MAX"]),
        ("--sizes", "256x256..128x128", ["out of order"]),
        ("--batch", "0", ["batch"]),
        ("--weight-streaming", None, ["onnxruntime has no weight streaming", "tensorrt or tensorrt-rtx"]),
    ],
)
def test_build_options(sdxl_trt: Command, option: str, value: str | None, parts: list[str]) -> None:
    refused(sdxl_trt("build", "demo", "--gpu", "cpu", "-o", "engines", *filter(None, [option, value])), 2, *parts)
    assert not Path("engines").exists()


def test_unwritable_bundle(sdxl_trt: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(sdxl_trt("build", "demo", "--gpu", "cpu", "-o", "file/bundle"), 1, "cannot write", "-o")


# Running


@pytest.mark.parametrize(
    ("arguments", "status", "parts"),
    [
        (["--size", "100x128"], 2, ["not a multiple of 8", "96x128"]),
        (["--size", "512x128"], 2, ["not built for this size", "64x64 to 256x256", "--sizes 64x64..512x256"]),
        (["--steps", "0"], 2, ["steps"]),
        (["--steps", "1001"], 2, ["steps"]),
        (["--guidance", "nan"], 2, ["guidance"]),
        (["--guidance", "-1"], 2, ["guidance"]),
        (["--seed", str(2**64)], 2, ["seed"]),
        (["--sampler", "eulr"], 2, ["unknown sampler", "did you mean euler?"]),
        (["-o", "out.jpg"], 1, [".png"]),
        (["-o", "/proc/x/out.png"], 1, ["cannot write"]),
        (["--seed", "1", "--seed", "2", "-n", "2"], 2, ["not both"]),
    ],
)
def test_run_settings(
    sdxl_trt: Command, demo_bundle: Path, arguments: list[str], status: int, parts: list[str]
) -> None:
    refused(sdxl_trt("run", "a red circle", "--bundle", demo_bundle, *arguments), status, *parts)
    assert not list(Path().glob("*"))


def test_output_under_a_file(sdxl_trt: Command, demo_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(sdxl_trt("run", "x", "--bundle", demo_bundle, "-o", "file/out.png"), 1, "cannot write", "not a folder")


def test_prompt_too_long(sdxl_trt: Command, demo_bundle: Path) -> None:
    prompt = "a large red circle " * 90
    refused(
        sdxl_trt("run", prompt, "--bundle", demo_bundle), 2, "308 tokens", "circle a large red", "--prompt-chunks 5"
    )


@pytest.mark.parametrize("option", ["thresholding", "clip_sample"])
def test_scheduler_without_a_table(sdxl_trt: Command, bundle: Path, option: str) -> None:
    edit(bundle / "bundle.json", lambda manifest: manifest["model"]["scheduler"].update({option: True}))
    refused(sdxl_trt("run", "a red circle", "--bundle", bundle), 1, option)


# Bundles


def test_no_bundle(sdxl_trt: Command, tmp_path: Path) -> None:
    refused(sdxl_trt("run", "x", "--bundle", tmp_path), 1, "is not a bundle", "sdxl-trt build")


@pytest.mark.parametrize("place", ["first byte", "last byte"])
def test_flipped_byte(sdxl_trt: Command, bundle: Path, place: str) -> None:
    manifest = json.loads((bundle / "bundle.json").read_bytes())
    blob = bundle / "blobs" / "sha256" / manifest["targets"][0]["engines"]["step"]["file"]["sha256"]
    data = bytearray(blob.read_bytes())
    data[0 if place == "first byte" else -1] ^= 1
    blob.write_bytes(data)
    refused(sdxl_trt("run", "x", "--bundle", bundle), 1, "damaged or was altered", "SHA-256")
    refused(sdxl_trt("inspect", bundle, "--verify"), 1, "damaged or was altered", "SHA-256")


def test_missing_blob(sdxl_trt: Command, bundle: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_bytes())
    (bundle / "blobs" / "sha256" / manifest["targets"][0]["engines"]["step"]["file"]["sha256"]).unlink()
    refused(sdxl_trt("run", "x", "--bundle", bundle), 1, "damaged or was altered", "No such file")


def test_path_that_escapes(sdxl_trt: Command, bundle: Path) -> None:
    def escape(manifest: Any) -> None:
        manifest["targets"][0]["engines"]["step"]["file"]["sha256"] = "../../../../etc/passwd"

    edit(bundle / "bundle.json", escape)
    refused(sdxl_trt("run", "x", "--bundle", bundle), 1, "is not a SHA-256")


def test_link_that_escapes(sdxl_trt: Command, bundle: Path, tmp_path: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_bytes())
    blob = bundle / "blobs" / "sha256" / manifest["targets"][0]["engines"]["step"]["file"]["sha256"]
    blob.rename(tmp_path / "elsewhere")
    blob.symlink_to(tmp_path / "elsewhere")
    refused(sdxl_trt("run", "x", "--bundle", bundle), 1, "symbolic link")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"schema": 99}, ["unknown schema version", "99"]),
        ({"spec": 99}, ["unknown spec version", "99"]),
        ({"surprise": 1}, ["unknown field 'surprise'"]),
    ],
)
def test_manifest_of_another_kind(sdxl_trt: Command, bundle: Path, change: Any, parts: list[str]) -> None:
    edit(bundle / "bundle.json", lambda manifest: manifest.update(change))
    refused(sdxl_trt("run", "x", "--bundle", bundle), 1, *parts)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1, "schema": 1}', "NaN", "[" * 10_000])
def test_manifest_that_is_none(sdxl_trt: Command, bundle: Path, text: str) -> None:
    (bundle / "bundle.json").write_text(text)
    refused(sdxl_trt("inspect", bundle), 1, "bundle.json")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"processor": "aarch64"}, ["built for a aarch64 processor", "x86_64"]),
        ({"flavour_version": "99.1.0"}, ["onnxruntime 99.1.0", "this host has"]),
        ({"flavour": "tensorrt-rtx", "sms": [86]}, ["needs tensorrt-rtx", "--gpu cpu"]),
    ],
)
def test_bundle_for_another_host(sdxl_trt: Command, bundle: Path, change: Any, parts: list[str]) -> None:
    edit(bundle / "bundle.json", lambda manifest: manifest["targets"][0].update(change))
    refused(sdxl_trt("run", "x", "--bundle", bundle), 1, "nothing in", *parts)


def test_errors_as_json(sdxl_trt: Command, demo_bundle: Path) -> None:
    outcome = sdxl_trt("run", "x", "--bundle", demo_bundle, "--steps", "0", "--json")
    assert outcome.status == 2
    assert outcome.json["error"] == "UsageError"
    assert set(outcome.json) == {"error", "what", "got", "expected", "fix"}
    assert all(outcome.json.values())
    assert sdxl_trt("run", "--json").json["error"] == "UsageError"
