"""Models from the hub: what is fetched and what is not, and going on after a cut."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

from hub_client import SHAPES, TUNED, Client, needed, same
from loopback_hub import Hub
from models import Models

from sdxl_trt.export.checkpoint import open_checkpoint
from sdxl_trt.exported import read_index, weights_path
from sdxl_trt.paths import DEMO_CHECKPOINT


def test_what_an_export_reads_is_fetched_and_nothing_else(client: Client, hub: Hub) -> None:
    answer = client.call(SHAPES)
    folder = Path(answer["path"])
    same(folder, DEMO_CHECKPOINT)
    assert hub.fetched() == needed(DEMO_CHECKPOINT)
    assert folder.is_relative_to(client.home / "hf" / "hub")
    total = sum(
        (DEMO_CHECKPOINT / name).stat().st_size for name in needed(DEMO_CHECKPOINT) if name != "model_index.json"
    )
    assert {stage for stage, _, _ in answer["steps"]} == {f"fetch {SHAPES}"}
    assert answer["steps"][-1][1:] == [total, total]
    assert [done for _, done, _ in answer["steps"]] == sorted(done for _, done, _ in answer["steps"])
    assert open_checkpoint(folder).model == open_checkpoint(DEMO_CHECKPOINT).model, "its name is the repository's too"


def test_the_second_time_nothing_is_fetched(client: Client, hub: Hub) -> None:
    folder = client.fetch(SHAPES)
    assert client.fetch(SHAPES) == folder
    assert hub.fetched() == []
    assert client.fetch(f"{SHAPES}@main") == client.fetch(f"{SHAPES}@{hub.commit(SHAPES)}") == folder


def test_shards(client: Client, models: Models, hub: Hub) -> None:
    """No fp16: the full variant, which is in shards; a decoy shard is of no index."""
    checkpoint = models.checkpoint("v")
    shutil.copytree(checkpoint, hub.root / TUNED)
    (hub.root / TUNED / "unet" / "diffusion_pytorch_model-00009-of-00009.safetensors").write_text("not to be fetched")
    folder = client.fetch(TUNED)
    same(folder, checkpoint)
    assert list(folder.glob("unet/*-00002-of-*.safetensors"))
    open_checkpoint(folder)


def test_what_an_older_program_fetched_is_used_offline(client: Client, hub: Hub) -> None:
    """huggingface_hub 1 left no list of the repository's files; diffusers may have taken the full variant."""
    folder = client.fetch(SHAPES)
    shutil.rmtree(folder.parents[1] / "trees")
    for path in folder.rglob("*.fp16.safetensors"):
        path.rename(path.with_name(path.name.replace(".fp16", "")))
    assert client.fetch(SHAPES, HF_HUB_OFFLINE="1") == folder
    open_checkpoint(folder)
    assert hub.requests == []


def test_offline(client: Client, hub: Hub) -> None:
    message = client.refused("stabilityai/stable-diffusion-xl-base-1.0", HF_HUB_OFFLINE="1")
    assert "'demo', which comes with sdxl-trt" in message
    folder = client.fetch(SHAPES)
    assert client.fetch(SHAPES, HF_HUB_OFFLINE="1") == folder
    assert hub.requests == []
    assert client.fetch(SHAPES, HF_ENDPOINT="http://127.0.0.1:9") == folder
    hub.down = True
    assert client.fetch(SHAPES) == folder
    (folder / "vae" / "config.json").unlink()
    message = client.refused(SHAPES, HF_HUB_OFFLINE="1")
    assert "a cache without vae/config.json" in message
    assert "'demo'" in message


def test_no_network(client: Client) -> None:
    message = client.refused(SHAPES, HF_ENDPOINT="http://127.0.0.1:9")
    for part in ("ConnectError", "http://127.0.0.1:9", "'demo'"):
        assert part in message


def test_the_hub_is_down(client: Client, hub: Hub) -> None:
    hub.down = True
    message = client.refused(SHAPES)
    assert "503" in message
    assert "'demo'" in message
    hub.down = False
    (client.fetch(SHAPES) / "vae" / "config.json").unlink()
    hub.down = True
    message = client.refused(SHAPES)
    assert "503" in message
    assert "a cache without vae/config.json" in message


def weights(folder: Path) -> bytes:
    """A file of three of huggingface_hub's 10 MB pieces and a bit."""
    data = hashlib.shake_256(b"weights").digest(31 * 2**20 + 5)
    (folder / "tuned.safetensors").write_bytes(data)
    return data


def test_a_killed_download_goes_on(client: Client, hub: Hub, tuned: Path) -> None:
    data = weights(tuned)
    hub.stalled["tuned.safetensors"] = 25 * 2**20
    process = client.start(TUNED)
    while not client.partial or client.partial[0].stat().st_size < 20 * 2**20:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate()
    hub.stalled.clear()
    answer = client.call(TUNED)
    assert {r.range for r in hub.requests if r.method == "GET" and "tuned" in r.path} == {f"bytes={20 * 2**20}-"}
    assert answer["steps"][0][1] == 20 * 2**20
    assert Path(answer["path"]).read_bytes() == data
    assert client.partial == []


def test_a_broken_connection_is_taken_up_again(client: Client, hub: Hub, tuned: Path) -> None:
    data = weights(tuned)
    hub.broken["tuned.safetensors"] = 15 * 2**20
    assert client.fetch(TUNED).read_bytes() == data
    assert f"bytes={10 * 2**20}-" in {r.range for r in hub.requests}


def test_damage_on_the_way_is_found(client: Client, hub: Hub, tuned: Path) -> None:
    data = weights(tuned)
    hub.altered.add("tuned.safetensors")
    message = client.refused(TUNED)
    assert "damaged on its way" in message
    assert hashlib.sha256(data).hexdigest() in message
    assert client.partial == []
    hub.altered.clear()
    assert client.fetch(TUNED).read_bytes() == data


def test_one_file(client: Client, hub: Hub, tuned: Path) -> None:
    (tuned / "tuned.safetensors").write_text("weights")
    (tuned / "LICENSE.md").write_text("licence")
    (tuned / "tuned.ckpt").write_text("not to be fetched")
    path = client.fetch(TUNED)
    assert (path.name, path.read_text()) == ("tuned.safetensors", "weights")
    assert hub.fetched() == ["LICENSE.md", "tuned.safetensors"]
    assert client.fetch(TUNED, HF_HUB_OFFLINE="1") == path


def test_several_files(client: Client, hub: Hub, tuned: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        (tuned / name).write_text(name)
    message = client.refused(TUNED)
    assert f"{TUNED}/a.safetensors or {TUNED}/b.safetensors" in message
    assert client.fetch(f"{TUNED}/b.safetensors").read_text() == "b.safetensors"
    assert client.fetch(f"{TUNED}/a.safetensors@main").read_text() == "a.safetensors"
    assert "no c.safetensors" in client.refused(f"{TUNED}/c.safetensors")


def test_from_the_command_line_to_graphs(client: Client, hub: Hub, models: Models) -> None:
    """A model from the hub is the same model as from a folder: an export of that one, of the same name, is kept."""
    folder, out = models.checkpoint("refiner"), client.home / "out"
    shutil.copytree(folder, hub.root / "someone" / folder.name)
    shutil.copytree(models.export("refiner"), out)  # spares the test the tracing
    command = [sys.executable, "-m", "sdxl_trt", "export", f"someone/{folder.name}", "-o", str(out)]
    outcome = subprocess.run(
        command, cwd=client.home, env=client.environment(), check=False, capture_output=True, text=True
    )
    assert outcome.returncode == 0, outcome.stderr
    assert f"fetch someone/{folder.name} …" in outcome.stderr
    index, other = read_index(out), read_index(models.export("refiner"))
    assert (index.model, index.graphs, index.files) == (other.model, other.graphs, other.files)
    for location, file in index.weights.items():
        assert file.content == other.weights[location].content
        path = weights_path(out, index, location)
        assert path.is_file()
        assert path.is_relative_to(out if location.startswith("converted/") else client.home / "hf")
