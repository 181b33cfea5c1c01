"""`sdxl-trt run --preview-every`: files beside the picture while it is made, and none of them left."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdxl_trt.cli import previews

Command = Callable[..., Any]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Previews as they were written: names and pixels."""
    files: list[tuple[str, Any]] = []
    write = previews._write

    def written(step: Any, file: Path) -> None:
        write(step, file)
        files.append((file.name, np.asarray(Image.open(file), float)))

    monkeypatch.setattr(previews, "_write", written)
    return files


def test_previews_come_every_n_steps_look_like_the_picture_and_go(
    sdxl_trt: Command, demo_bundle: Path, seen: list[tuple[str, Any]]
) -> None:
    settings = ("--bundle", demo_bundle, "--seed", 7, "-n", 2, "--steps", 9, "--size", "160x96", "-o", "out.png")
    outcome = sdxl_trt("run", "a large red circle on a white background", *settings, "--preview-every", 4)
    assert outcome.status == 0, outcome
    assert sorted(name for name, _ in seen) == ["out-preview-2.png"] * 2 + ["out-preview.png"] * 2
    assert sorted(path.name for path in Path().glob("*")) == ["out-7.png", "out-8.png"]
    picture = np.asarray(Image.open("out-7.png"), float)
    early, late = (pixels for name, pixels in seen if name == "out-preview.png")
    assert early.shape == picture.shape == (96, 160, 3)
    alike = [float(np.corrcoef(pixels.ravel(), picture.ravel())[0, 1]) for pixels in (early, late)]
    print(f"correlation with the picture: after 4 steps {alike[0]:.2f}, after 8 {alike[1]:.2f}")
    assert alike[1] > max(alike[0], 0.7)


def test_what_is_there_already_is_not_overwritten(sdxl_trt: Command, demo_bundle: Path) -> None:
    Path("a[1]-preview.png").write_text("mine")
    outcome = sdxl_trt("run", "", "--bundle", demo_bundle, "--steps", 1, "-o", "a[1].png", "--preview-every", 1)
    assert outcome.status == 1
    assert "would overwrite a[1]-preview.png" in outcome.err
    assert [path.name for path in Path().glob("*")] == ["a[1]-preview.png"]
    assert Path("a[1]-preview.png").read_text() == "mine"


def test_an_error_leaves_no_preview(sdxl_trt: Command, demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, count = previews._write, 0

    def full(step: Any, file: Path) -> None:
        nonlocal count
        count += 1
        if count == 2:
            monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        write(step, file)

    monkeypatch.setattr(previews, "_write", full)
    outcome = sdxl_trt("run", "", "--bundle", demo_bundle, "--steps", 3, "-o", "out.png", "--preview-every", 1)
    assert outcome.status == 1
    assert "No space left on device" in outcome.err
    assert count == 2
    assert list(Path().glob("*")) == []


def test_ctrl_c_leaves_no_preview(demo_bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sdxl_trt", "run", "a star", "--bundle", str(demo_bundle), "-o", "out.png"]
    process = subprocess.Popen([*command, "--steps", "1000", "--preview-every", "1"], cwd=tmp_path, stderr=-1)
    for _ in range(1200):
        if (tmp_path / "out-preview.png").exists():
            break
        time.sleep(0.05)
    else:
        pytest.fail("no preview within a minute")
    with Image.open(tmp_path / "out-preview.png") as preview:
        preview.load()  # whole, though it is being written again
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []


def test_help_says_what_becomes_of_it(sdxl_trt: Command) -> None:
    text = " ".join(sdxl_trt("run", "--help").out.split())
    assert "--preview-every N" in text
    assert "NAME-preview.png" in text


@pytest.mark.parametrize("value", ["0", "-1", "x"])
def test_what_is_no_number_of_steps(sdxl_trt: Command, value: str) -> None:
    assert sdxl_trt("run", "", "--preview-every", value).status == 2
