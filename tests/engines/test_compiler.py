"""What becomes of a build when the process that compiles does not end well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sdxl_trt.engines import compiler
from sdxl_trt.engines.build import build
from sdxl_trt.engines.targets import resolve_targets
from sdxl_trt.errors import BuildError
from sdxl_trt.spec import Profile

BUILD = """
import resource, sys
from pathlib import Path
from sdxl_trt.engines.build import build
from sdxl_trt.engines.targets import resolve_targets
from sdxl_trt.errors import SdxlTrtError
from sdxl_trt.spec import Profile
export, bundle, *limit = sys.argv[1:]
if limit:
    resource.setrlimit(getattr(resource, limit[0]), (int(limit[1]),) * 2)
profile = Profile.make(smallest=(64, 64), best=(64, 64), largest=(128, 128), batch=2, tokens=8, chunks=2)
try:
    build(Path(export), Path(bundle), resolve_targets(["rtx3060"]), profile=profile, progress=print)
except SdxlTrtError as error:
    sys.exit(str(error))
"""


def children() -> list[int]:
    """Processes that compile for this one."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            command = status.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if parent == os.getpid() and compiler.__name__.encode() in command:
            found.append(int(status.parent.name))
    return found


def at_half_of_step(act: Callable[[int], None]) -> Callable[[str, int, int], None]:
    """A Progress that does something to the compiling process, once."""
    done_to = list[int]()

    def progress(stage: str, done: int, total: int) -> None:
        if stage.endswith(" step") and done > 10 and not done_to:
            (child,) = children()
            done_to.append(child)
            act(child)

    return progress


@pytest.mark.parametrize(
    ("sent", "got", "expected"),
    [(signal.SIGKILL, "SIGKILL", "GB of free memory"), (signal.SIGSEGV, "SIGSEGV", "a plan")],
)
def test_death_is_one_clear_error(
    sent: signal.Signals, got: str, expected: str, export: Path, profile: Profile, tmp_path: Path
) -> None:
    kill = at_half_of_step(lambda child: os.kill(child, sent))
    with pytest.raises(BuildError, match="ended while it compiled step") as caught:
        build(export, tmp_path, resolve_targets(["rtx3060"]), profile=profile, progress=kill)
    print(caught.value)
    assert got in caught.value.got
    assert expected in caught.value.expected
    assert "finished engines are kept" in caught.value.fix
    assert not list(tmp_path.rglob(".sdxl-trt-tmp-*"))
    assert len(list((tmp_path / ".pending").glob("*.json"))) == 2, "the text encoders before it"
    build(export, tmp_path, resolve_targets(["rtx3060"]), profile=profile)


def test_standstill_is_noticed(export: Path, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "STALLED", 3.0)
    stop = at_half_of_step(lambda child: os.kill(child, signal.SIGSTOP))
    with pytest.raises(BuildError, match="stopped while it compiled step") as caught:
        build(export, tmp_path, resolve_targets(["rtx3060"]), profile=profile, progress=stop)
    assert "no progress and no processor time" in caught.value.got
    assert not children()


def test_compiling_ends_with_its_parent(export: Path, tmp_path: Path) -> None:
    """A killed build does not leave a process that goes on for minutes with 10 GB."""
    command = [sys.executable, "-c", BUILD, str(export), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "step" in line and "build" in line:
                break
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while (left := _compiling_of_nobody()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def _compiling_of_nobody() -> list[str]:
    lines = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if line.split()[0] == "1" and compiler.__name__ in line]


@pytest.mark.parametrize(
    ("limit", "amount", "said"),
    [("RLIMIT_DATA", 150 << 20, "GB of free memory"), ("RLIMIT_FSIZE", 100_000, "cannot write")],
)
def test_too_little_memory_or_disk_is_one_clear_error(
    limit: str, amount: int, said: str, export: Path, tmp_path: Path
) -> None:
    """A limit on file sizes fails a write in the middle as a full disk does.

    The bundle has no neighbours: a plan that one of them has already is linked, and no limit is met.
    """
    bundle = tmp_path / "bundle"

    def run(*limited: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", BUILD, str(export), str(bundle), *limited]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    failed = run(limit, str(amount))
    print(failed.stderr)
    assert failed.returncode == 1
    assert said in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not list(bundle.rglob(".sdxl-trt-tmp-*"))
    assert not (bundle / "bundle.json").exists()
    assert run().returncode == 0
    assert (bundle / "bundle.json").exists()
