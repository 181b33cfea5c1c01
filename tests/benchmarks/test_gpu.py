"""What ./scripts/gpu decides; the rest of it needs a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import fullsize, gpu

GPU = {"key": "h200", "flavour": "tensorrt"}


def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is run from now on, instead of running it."""
    ran: list[list[str]] = []

    def run(command: list[object], **options: Any) -> subprocess.CompletedProcess[bytes]:
        ran.append([str(part) for part in command[1:]])
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(gpu.subprocess, "run", run)
    return ran


def test_commands_are_of_the_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every option that it gives is one that the command takes."""
    from sdxl_trt.cli import cli

    ran = commands(monkeypatch)
    for name in gpu.MODELS:
        gpu.build(name, GPU, tmp_path)
        assert gpu.bench(name, tmp_path, 3) == {"failed": "exit status 1"}
    assert [command[:3] for command in ran] == [
        ["-m", "sdxl_trt", "build"],
        ["-m", "sdxl_trt", "bench"],
        *[["-m", "benchmarks.fullsize", "make"], ["-m", "sdxl_trt", "build"], ["-m", "sdxl_trt", "bench"]] * 2,
    ]
    for _, module, command, *arguments in ran:
        group = fullsize.main if "fullsize" in module else cli
        parsed = group.get_command(None, command)  # type: ignore[arg-type]
        assert parsed is not None
        parsed.make_context(command, list(arguments))


def test_counts_of_tests(tmp_path: Path) -> None:
    """As pytest itself writes them."""
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): assert 0\n"
        "def test_c(): pytest.skip('no')\n"
        "@pytest.fixture\n"
        "def broken(): raise ValueError\n"
        "def test_d(broken): pass\n"
        "def test_e(): pass\n"
    )
    results = tmp_path / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={results}", "-c", "/dev/null", str(tmp_path)]
    subprocess.run(command, check=False, capture_output=True)
    assert gpu.count_tests(results.read_text()) == {"passed": 2, "failed": 2, "skipped": 1}


def test_without_a_gpu_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    outcome = CliRunner().invoke(gpu.main, ["--folder", str(tmp_path / "work"), "--output", str(tmp_path)])
    assert outcome.exit_code == 1
    assert "cuda.bindings.driver cannot be imported" in outcome.output
    assert list(tmp_path.iterdir()) == []
