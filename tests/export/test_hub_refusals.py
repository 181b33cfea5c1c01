"""What the hub has not, or does not give: each one clear message."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from hub_client import SHAPES, TUNED, Client, same
from loopback_hub import Hub

from sdxl_trt.paths import DEMO_CHECKPOINT


def test_another_pipeline_is_refused_before_its_weights(client: Client, hub: Hub, tuned: Path) -> None:
    (tuned / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    (tuned / "transformer.safetensors").write_text("not to be fetched")
    message = client.refused(TUNED)
    assert "FluxPipeline" in message
    assert "StableDiffusionXLPipeline" in message
    assert hub.fetched() == ["model_index.json"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "unet/diffusion_pytorch_model.fp16.safetensors",
            ["is not complete", "unet/diffusion_pytorch_model.safetensors"],
        ),
        ("vae/config.json", ["is not complete", "no vae/config.json"]),
        ("tokenizer_2", ["is not complete", "no tokenizer_2/"]),
    ],
)
def test_a_missing_part(client: Client, hub: Hub, name: str, parts: list[str]) -> None:
    folder = shutil.copytree(DEMO_CHECKPOINT, hub.root / TUNED)
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).unlink(missing_ok=True)
    message = client.refused(TUNED)
    assert all(part in message for part in parts), message
    assert not any("safetensors" in path for path in hub.fetched())


def test_pickles_are_refused(client: Client, hub: Hub) -> None:
    folder = shutil.copytree(DEMO_CHECKPOINT, hub.root / TUNED)
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").rename(
        folder / "unet" / "diffusion_pytorch_model.bin"
    )
    message = client.refused(TUNED)
    assert "pickle" in message
    assert "unet/diffusion_pytorch_model.bin" in message


def test_a_token(client: Client, hub: Hub) -> None:
    hub.token = "hf_right"
    message = client.refused(SHAPES)
    assert "`hf auth login`, or set HF_TOKEN" in message
    client.refused(SHAPES, HF_TOKEN="hf_wrong")
    same(client.fetch(SHAPES, HF_TOKEN="hf_right"), DEMO_CHECKPOINT)
    shown = {
        r.path.split("/")[3] == "store": r.authorization
        for r in hub.requests
        if "resolve" in r.path or "store" in r.path
    }
    assert shown == {False: "Bearer hf_right", True: None}, "the store of large files is not shown the token"
    token = client.home / "hf" / "token"
    token.write_text("hf_right")
    client.fetch(SHAPES)
    client.refused(SHAPES, HF_HUB_DISABLE_IMPLICIT_TOKEN="1")


def test_gated(client: Client, hub: Hub) -> None:
    hub.gated = True
    message = client.refused(SHAPES)
    for part in ("is gated", "no token", f"{hub.endpoint}/{SHAPES}", "hf auth login", "HF_TOKEN"):
        assert part in message
    assert "a token without access" in client.refused(SHAPES, HF_TOKEN="hf_other")


def test_unknown(client: Client) -> None:
    assert "neither a folder or file here, nor a model on" in client.refused("someone/nothing", HF_TOKEN="hf_any")
    assert "neither a folder or file here" in client.refused("someone/no--such")
    assert "no such revision" in client.refused(f"{SHAPES}@v9")


def test_paths_are_no_hub_ids(client: Client, hub: Hub) -> None:
    (client.home / SHAPES).mkdir(parents=True)
    for path in (SHAPES, "./model", "/some/model", "folder/model.safetensors", "../models/model", "model"):
        assert client.fetch(path) == Path(path)
    assert hub.requests == []


def test_no_room_is_found_before(client: Client, hub: Hub) -> None:
    hub.sizes["unet/diffusion_pytorch_model.fp16.safetensors"] = 10**18
    message = client.refused(SHAPES, "OutputError")
    assert "1000000000.0 GB" in message
    assert "HF_HOME" in message
    assert not any("safetensors" in path for path in hub.fetched())


def test_a_full_disk(client: Client, hub: Hub) -> None:
    """/dev/full is a file on a full disk."""
    path = DEMO_CHECKPOINT / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    blobs = client.home / "hf" / "hub" / f"models--{SHAPES.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(path.read_bytes()).hexdigest()}.incomplete").symlink_to("/dev/full")
    message = client.refused(SHAPES, "OutputError")
    assert "No space left" in message
    assert "HF_HOME" in message


def test_an_unwritable_cache(client: Client) -> None:
    (client.home / "hf").write_text("not a folder")
    assert "cannot write" in client.refused(SHAPES, "OutputError")
