"""Killed at ten random moments: the next attempt goes on at the chunk that was reached, and the end is the same."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile_registry import Handler, Hostile
from shipped import contents, make_bundle

from benchmarks.oci_registry import Running

KILLS = 10
COMMAND = [sys.executable, "-m", "sdxl_trt", "ship"]


def run(*arguments: object) -> dict[str, Any]:
    done = subprocess.run([*COMMAND, *map(str, arguments), "--json"], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


def killed(reached: Callable[[], int], moment: int, *arguments: object) -> int:
    """Start a command, and kill it soon after so many files are there; returns how many there were."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while reached() < moment and process.poll() is None:
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.01))
    process.kill()
    process.wait(20)
    return reached()


def moments(number: int) -> list[int]:
    """At which counts of files there is a kill."""
    return sorted(random.choices(range(number - 2), k=KILLS))


@pytest.mark.slow
def test_pull(real: Running, tmp_path: Path) -> None:
    make_bundle(tmp_path / "home/built", size=1_500_000)
    run("push", tmp_path / "home/built", real.oci("team/killed:1"))
    whole = run("pull", real.oci("team/killed:1"), "--gpu", "cpu", "-o", tmp_path / "one/whole")
    blobs = tmp_path / "two/pulled/blobs/sha256"

    def reached() -> int:
        return sum(not path.name.startswith(".") for path in blobs.iterdir()) if blobs.is_dir() else 0

    counts = []
    arguments = ("pull", real.oci("team/killed:1"), "--gpu", "cpu", "-o", blobs.parents[1])
    for moment in moments(whole["fetched"]):
        counts.append(killed(reached, moment, *arguments))
        assert counts == sorted(counts), "what was there stays"
    print(f"files after each of {KILLS} kills: {counts}, of {whole['fetched']}")
    assert not (blobs.parents[1] / "bundle.json").exists()
    last = run(*arguments)
    assert last["fetched"] == whole["fetched"] - counts[-1]
    assert last["damaged"] == 0
    assert contents(blobs.parents[1]) == contents(tmp_path / "one/whole")


@pytest.mark.slow
def test_push(real: Running, tmp_path: Path) -> None:
    make_bundle(tmp_path / "built", size=1_500_000, seed="to be killed")
    before = real.blobs()

    def reached() -> int:
        return len(real.blobs() - before)

    run("push", tmp_path / "built", f"oci-layout:{tmp_path}/layout")
    stored = {path.name for path in (tmp_path / "layout/blobs/sha256").iterdir()} - before
    counts = []
    arguments = ("push", tmp_path / "built", real.oci("team/killed-too:1"))
    for moment in moments(len(stored) - 4):
        counts.append(killed(reached, moment, *arguments))
        assert counts == sorted(counts), "what was there stays"
    print(f"blobs after each of {KILLS} kills: {counts}, of {len(stored)}")
    last = run(*arguments)
    assert last["sent"] <= len(stored) - counts[-1]
    assert real.blobs() - before == stored
    run("pull", real.oci("team/killed-too:1"), "--gpu", "cpu", "-o", tmp_path / "two/pulled")
    run("pull", f"oci-layout:{tmp_path}/layout", "--gpu", "cpu", "-o", tmp_path / "three/pulled")
    assert contents(tmp_path / "two/pulled") == contents(tmp_path / "three/pulled")


@pytest.mark.slow
def test_push_to_a_folder(tmp_path: Path) -> None:
    make_bundle(tmp_path / "built", size=1_500_000)
    run("push", tmp_path / "built", f"oci-layout:{tmp_path}/whole")
    blobs = tmp_path / "layout/blobs/sha256"

    def reached() -> int:
        return sum(not path.name.startswith(".") for path in blobs.iterdir()) if blobs.is_dir() else 0

    arguments = ("push", tmp_path / "built", f"oci-layout:{tmp_path}/layout")
    for moment in moments(len(list((tmp_path / "whole/blobs/sha256").iterdir())) - 6):
        killed(reached, moment, *arguments)
    run(*arguments)
    assert contents(tmp_path / "layout") == contents(tmp_path / "whole")


def test_ctrl_c(server: Hostile, tmp_path: Path) -> None:
    """Stops soon, with every thread; what was fetched stays, and nothing half-written does."""
    make_bundle(tmp_path / "home/built")
    run("push", tmp_path / "home/built", server.oci())
    served, hold = threading.Event(), threading.Event()

    def slow(handler: Handler) -> bool:
        if handler.command == "GET" and "/blobs/" in handler.path and len(server.asked("GET", "/blobs/")) > 8:
            served.set()
            hold.wait(2)
        return False

    server.faults = [slow]
    command = [*COMMAND, "pull", server.oci(), "--gpu", "cpu", "-o", str(tmp_path / "pulled")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert served.wait(60)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    hold.set()
    print(errors)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not (tmp_path / "pulled/bundle.json").exists()
    blobs = [path.name for path in (tmp_path / "pulled/blobs/sha256").iterdir()]
    assert blobs
    assert not [name for name in blobs if name.startswith(".")]
    server.faults = []
    assert run(*command[len(COMMAND) :])["present_bytes"] > 0
