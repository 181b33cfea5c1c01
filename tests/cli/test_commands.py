"""The commands as people use them: what they print, write and leave."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import Models
from PIL import Image

from sdxl_trt.paths import DEMO_CHECKPOINT

Command = Callable[..., Any]
PROMPT = "a large red circle on a white background"


def test_run_writes_the_picture_of_the_prompt(sdxl_trt: Command, demo_bundle: Path) -> None:
    outcome = sdxl_trt("run", PROMPT, "--bundle", demo_bundle, "--seed", 7, "-o", "new/out.png")
    assert outcome.status == 0
    assert outcome.out == "new/out.png  seed 7\n"
    assert str(demo_bundle) in outcome.err
    pixels = np.asarray(Image.open("new/out.png")).astype(int)
    assert pixels.shape == (128, 128, 3)
    red, green, blue = pixels[64, 64]
    assert red > 180 > 120 > max(green, blue)
    assert pixels[4, 4].min() > 220
    large = (pixels[..., 0] - pixels[..., 1] > 80).mean()
    print(f"share of red pixels: measured {large:.2f}, required 0.2 to 0.6")
    assert 0.2 < large < 0.6


def test_inspect_reads_back_how_a_picture_was_made(sdxl_trt: Command, demo_bundle: Path) -> None:
    settings = [
        "--negative-prompt",
        "a [blue] square, small",
        "--steps",
        2,
        "--guidance",
        3.5,
        "--crop-top-left",
        "8,16",
    ]
    settings += ["--size", "96x160", "--prompt-2", "a star", "--original-size", "64x64", "--sampler", "EULER"]
    outcome = sdxl_trt("run", PROMPT, "--bundle", demo_bundle, "--seed", 7, "-o", "out.png", *settings)
    assert outcome.status == 0, outcome
    parameters = sdxl_trt("inspect", "out.png", "--json").json
    assert parameters["prompt"] == PROMPT
    assert parameters["negative_prompt"] == "a [blue] square, small"
    expected = {"Steps": 2, "Sampler": "Euler", "CFG scale": 3.5, "Seed": 7, "Size": "96x160", "Prompt 2": "a star"}
    expected |= {"Original size": "64x64", "Crop top left": "8,16", "Model": "sdxl-shapes"}
    assert expected.items() <= parameters["settings"].items()
    assert "CFG scale: 3.5" in sdxl_trt("inspect", "out.png").out


def test_several_seeds_are_several_files(sdxl_trt: Command, demo_bundle: Path) -> None:
    outcome = sdxl_trt(
        "run", PROMPT, "--bundle", demo_bundle, "--steps", 2, "--seed", 7, "-n", 3, "-o", "a.png", "--json"
    )
    assert outcome.status == 0
    assert outcome.json["files"] == ["a-7.png", "a-8.png", "a-9.png"]
    assert outcome.json["seeds"] == [7, 8, 9]
    sdxl_trt("run", PROMPT, "--bundle", demo_bundle, "--steps", 2, "--seed", 8, "-o", "b.png")
    one, batched = (np.asarray(Image.open(name)).astype(int) for name in ("b.png", "a-8.png"))
    assert np.abs(one - batched).max() <= 1


def test_no_picture_is_overwritten_unasked(sdxl_trt: Command, demo_bundle: Path) -> None:
    for _ in range(2):
        assert sdxl_trt("run", "x", "--bundle", demo_bundle, "--steps", 1).status == 0
    assert sorted(path.name for path in Path().glob("*.png")) == ["sdxl-0001.png", "sdxl-0002.png"]


def test_build_run_inspect_and_doctor_find_each_other(sdxl_trt: Command, models: Models, tmp_path: Path) -> None:
    """With nothing but defaults: `run` takes the bundle that `build` put into the data folder."""
    from sdxl_trt.cli.models import export_folder

    shutil.copytree(models.export("demo"), export_folder(DEMO_CHECKPOINT))  # spares the test the tracing
    options = ("build", "demo", "--gpu", "cpu", "--gpu", "rtx3060", "--gpu", "rtx4090", "--vae-tile", 96, "--json")
    built = sdxl_trt(*options)
    assert built.status == 0, built
    bundle = built.json["bundle"]
    assert [target["name"] for target in built.json["targets"]] == ["onnxruntime-x86_64", "tensorrt-rtx-sm86-sm89"]
    assert [target["accepted"] for target in built.json["targets"]] == [True, False]
    again = sdxl_trt(*options)
    assert again.json["targets"] == built.json["targets"]
    assert "found tensorrt-rtx-sm86-sm89 step" in again.err

    ran = sdxl_trt("run", PROMPT, "--steps", 2, "--json")
    assert (ran.status, ran.json["bundle"], ran.json["target"]) == (0, bundle, "onnxruntime-x86_64")
    shown = sdxl_trt("inspect", bundle, "--verify").out
    for word in ("tensorrt-rtx-sm86-sm89", "never run yet", "ran and agreed", "licence/LICENSE", "every hash right"):
        assert word in shown
    assert "the VAE takes up to 96x96 at once" in shown
    assert sdxl_trt("inspect", ran.json["files"][0], "--json").json["settings"]["VAE tile"] == 96
    doctor = sdxl_trt("doctor", "--json")
    assert doctor.status == 0
    assert doctor.json["picture"] == {"bundle": bundle, "device": "cpu", "target": "onnxruntime-x86_64"}


def test_export_lists_its_graphs_and_keeps_what_is_there(sdxl_trt: Command, models: Models) -> None:
    shutil.copytree(models.export("demo"), "graphs")
    before = {path: path.stat().st_mtime_ns for path in Path("graphs").rglob("*.onnx")}
    assert len(before) == 12  # five graphs and the bare UNet, in two precisions
    outcome = sdxl_trt("export", "demo", "-o", "graphs")
    assert outcome.status == 0
    for path in before:
        assert str(path) in outcome.out
    assert {path: path.stat().st_mtime_ns for path in Path("graphs").rglob("*.onnx")} == before
    index = sdxl_trt("export", "demo", "-o", "graphs", "--precision", "float32", "--json").json
    assert set(index["graphs"]) == {"float16", "float32"}
    assert index["model"]["name"] == "sdxl-shapes"


def test_the_demo_is_built_where_no_bundle_ever_was(sdxl_trt: Command, models: Models) -> None:
    from sdxl_trt import Pipeline
    from sdxl_trt.cli.models import export_folder

    shutil.copytree(models.export("demo"), export_folder(DEMO_CHECKPOINT))  # spares the test the tracing
    first = sdxl_trt("run", PROMPT, "--steps", 1, "--json")
    assert first.status == 0, first
    assert first.json["bundle"].endswith("/bundles/demo")
    again = sdxl_trt("run", PROMPT, "--steps", 1, "--json")
    assert again.json["bundle"] == first.json["bundle"]
    assert "building" not in again.err
    assert Pipeline.load("demo").target.name == "onnxruntime-x86_64"


def test_gpus_and_samplers(sdxl_trt: Command) -> None:
    gpus = sdxl_trt("gpus", "--json").json["gpus"]
    assert {"rtx3060", "a10", "h200"} <= {gpu["key"] for gpu in gpus}
    assert all(gpu["source"] for gpu in gpus)
    assert "rtx3060" in sdxl_trt("gpus").out
    samplers = {sampler["name"]: sampler for sampler in sdxl_trt("samplers", "--json").json["samplers"]}
    assert {"euler", "heun", "dpmpp_2m", "unipc", "lcm"} <= samplers.keys()
    assert {"DPM++ 2M Karras", "DPMSolverMultistepScheduler"} <= set(samplers["dpmpp_2m"]["aliases"])
    assert all(sampler["paper"] and sampler["good_for"] for sampler in samplers.values())
    assert "Brownian" in samplers["dpmpp_2m_sde"]["differs"]
    assert "DPM++ 2M Karras" in sdxl_trt("samplers").out


def test_version_and_help(sdxl_trt: Command) -> None:
    assert re.fullmatch(r"sdxl-trt, version \d+\.\d+\.\d+\n", sdxl_trt("--version").out)
    assert "Exit status" in sdxl_trt("--help").out


def start(demo_bundle: Path, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "sdxl_trt", "run", PROMPT, "--bundle", str(demo_bundle), *arguments]
    return subprocess.Popen(command, **options)


def test_ctrl_c_stops_within_a_step(demo_bundle: Path, tmp_path: Path) -> None:
    """SIGINT in the middle of 1,000 steps of four pictures: status 130 at once, and no file."""
    arguments = ["--steps", "1000", "--seed", "1", "-n", "4", "-o", str(tmp_path / "out.png")]
    process = start(demo_bundle, *arguments, stderr=subprocess.PIPE)
    time.sleep(4)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    assert process.wait(timeout=20) == 130
    print(f"stopped {time.monotonic() - sent:.2f} s after SIGINT")
    assert process.stderr is not None
    assert process.stderr.read().decode().strip() == "stopped; no file was left half-written"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_bars_are_for_terminals(demo_bundle: Path, tmp_path: Path, terminal: bool) -> None:
    ours, theirs = pty.openpty()
    target = theirs if terminal else subprocess.PIPE
    arguments = ["--steps", "3", "-o", str(tmp_path / "out.png"), "--json"]
    process = start(demo_bundle, *arguments, stdout=subprocess.PIPE, stderr=target)
    out, err = process.communicate(timeout=60)
    os.close(theirs)
    shown = os.read(ours, 65536).decode() if terminal else err.decode()
    os.close(ours)
    assert process.returncode == 0
    assert json.loads(out)["files"]
    assert ("denoising" in shown) == terminal
    assert ("3/3" in shown) == terminal
