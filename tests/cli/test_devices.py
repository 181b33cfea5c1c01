"""`sdxl-trt run --devices`: pictures on several devices, and Ctrl-C while they are made."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Command = Callable[..., Any]


def test_the_same_files_as_on_one_device(sdxl_trt: Command, demo_bundle: Path) -> None:
    settings = ("--bundle", demo_bundle, "--seed", 7, "-n", 3, "--steps", 4, "--threads", 1)
    one = sdxl_trt("run", "a red circle", *settings, "-o", "one.png")
    two = sdxl_trt("run", "a red circle", *settings, "-o", "two.png", "--devices", "cpu, cpu", "--json")
    assert (one.status, two.status) == (0, 0), two
    assert two.json["files"] == ["two-7.png", "two-8.png", "two-9.png"]
    assert two.json["seeds"] == [7, 8, 9]
    for seed in (7, 8, 9):
        assert Path(f"one-{seed}.png").read_bytes() == Path(f"two-{seed}.png").read_bytes()


@pytest.mark.parametrize(
    ("devices", "status", "message"),
    [
        ("gpu", 2, "this device cannot be used"),
        ("", 2, "this device cannot be used"),
        ("0,0", 2, "these devices cannot be used"),
        ("0,1", 1, ""),  # GPUs, which are not here
    ],
)
def test_devices_that_cannot_be_used(
    sdxl_trt: Command, demo_bundle: Path, devices: str, status: int, message: str
) -> None:
    outcome = sdxl_trt("run", "", "--bundle", demo_bundle, "--devices", devices)
    assert outcome.status == status, outcome
    assert message in outcome.err
    assert "fix:" in outcome.err
    assert list(Path().glob("*")) == []


def test_one_or_several(sdxl_trt: Command, demo_bundle: Path) -> None:
    outcome = sdxl_trt("run", "", "--bundle", demo_bundle, "--devices", "cpu", "--device", "cpu")
    assert outcome.status == 2
    assert "--device or --devices, not both" in outcome.err


def test_ctrl_c_leaves_no_process_and_no_file(demo_bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sdxl_trt", "run", "a star", "--bundle", str(demo_bundle), "-o", "out.png"]
    command += ["-n", "2", "--steps", "1000", "--preview-every", "1", "--devices", "cpu,cpu"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=-1)
    for _ in range(1200):
        if (tmp_path / "out-preview-2.png").exists():
            break
        time.sleep(0.05)
    else:
        pytest.fail("no preview within a minute")
    with Image.open(tmp_path / "out-preview-2.png") as preview:
        preview.load()
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(workers) == 2
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_memory_policies_are_told(sdxl_trt: Command, demo_bundle: Path) -> None:
    settings = ("--bundle", demo_bundle, "--seed", 7, "--steps", 2, "--threads", 1)
    stay = sdxl_trt("run", "a red circle", *settings, "-o", "stay.png")
    swap = sdxl_trt("run", "a red circle", *settings, "-o", "swap.png", "--memory", "swap", "--json")
    assert (stay.status, swap.status) == (0, 0), swap
    assert "memory: resident (on the processor)" in stay.err
    assert swap.json["memory"] == {"policy": "swap", "why": "asked for", "free": None, "peak": None}
    assert Path("stay.png").read_bytes() == Path("swap.png").read_bytes()


@pytest.mark.parametrize(
    ("memory", "message"), [("swop", "'swop' is not one of"), ("stream", "cannot be streamed here")]
)
def test_memory_policies_that_cannot_be_used(sdxl_trt: Command, demo_bundle: Path, memory: str, message: str) -> None:
    outcome = sdxl_trt("run", "", "--bundle", demo_bundle, "--memory", memory)
    assert outcome.status == 2
    assert message in outcome.err
    assert list(Path().glob("*")) == []
