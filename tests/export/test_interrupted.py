"""An export that is killed, or finds no room on the disk or in memory."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from models import Models

from sdxl_trt.export.run import export_model
from sdxl_trt.exported import INDEX_NAME, UNFINISHED_NAME, read_index
from sdxl_trt.files import TEMPORARY_PREFIX

EXPORT = """
import os, resource, signal, sys
from sdxl_trt.cli import main

checkpoint, folder, trouble, amount = sys.argv[1:]
amount = int(amount)

def synced(descriptor):
    global amount
    amount -= 1
    if not amount:
        os.kill(os.getpid(), signal.SIGKILL)

if trouble == "killed":
    os.fsync = synced
elif trouble == "disk":
    resource.setrlimit(resource.RLIMIT_FSIZE, (amount, amount))
elif trouble == "memory":
    resource.setrlimit(resource.RLIMIT_DATA, (amount, amount))
sys.argv = ["sdxl-trt", "export", checkpoint, "-o", folder, "--precision", "float32"]
main()
"""


def run(checkpoint: Path, folder: Path, trouble: str, amount: int) -> tuple[int, str]:
    """Export in a process of its own; exit status and what it said."""
    command = [sys.executable, "-c", EXPORT, str(checkpoint), str(folder), trouble, str(amount)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stderr[-2000:])
    return done.returncode, done.stderr


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(TEMPORARY_PREFIX + "*"))


def test_killed_while_it_writes_a_graph(models: Models, tmp_path: Path) -> None:
    """Files that are finished are kept, the half one goes, and the end is that of an unbroken export."""
    checkpoint = models.checkpoint("demo")
    status, _ = run(checkpoint, tmp_path, "killed", 3)  # syncs: a graph, the unfinished index, the next graph
    assert status == -signal.SIGKILL
    assert len(leftovers(tmp_path)) == 1
    assert not (tmp_path / INDEX_NAME).exists()
    assert list(read_index(tmp_path, UNFINISHED_NAME).graphs["float32"]) == ["text_encoder"]
    first = tmp_path / "float32" / "text_encoder.onnx"
    written = first.stat().st_mtime_ns
    index = export_model(checkpoint, tmp_path, precisions=("float32",))
    assert first.stat().st_mtime_ns == written
    assert index.graphs["float32"].items() <= read_index(models.export("demo")).graphs["float32"].items()
    assert leftovers(tmp_path) == []
    assert not (tmp_path / UNFINISHED_NAME).exists()


def test_a_full_disk(models: Models, tmp_path: Path) -> None:
    """A limit on file sizes fails a write in the middle as a full disk does."""
    status, said = run(models.checkpoint("demo"), tmp_path, "disk", 10_000)
    assert status == 1
    assert "error: cannot write" in said
    assert "float32/text_encoder.onnx" in said
    assert leftovers(tmp_path) == []
    assert not (tmp_path / INDEX_NAME).exists()


def test_too_little_memory(models: Models, tmp_path: Path) -> None:
    """A limit is seen before libraries run into it, which may end them without a word."""
    status, said = run(models.checkpoint("demo"), tmp_path, "memory", 400_000_000)
    assert status == 1
    assert "a limit of 0.40 GB: RLIMIT_DATA (ulimit -d)" in said
    assert "at least 1.00 GB" in said
    assert list(tmp_path.iterdir()) == []
