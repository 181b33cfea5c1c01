"""A build that is killed at any moment ends, when it is run again, as one that was not."""

from __future__ import annotations

import dataclasses
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from sdxl_trt.bundle import BlobStore, EngineEntry, Manifest, read_manifest
from sdxl_trt.engines.build import build
from sdxl_trt.engines.targets import resolve_targets
from sdxl_trt.files import write_json
from sdxl_trt.spec import Profile

GPUS = ["cpu", "rtx3060"]
MOMENTS = 10

PROGRAM = """
import sys
from pathlib import Path
import onnxruntime, tensorrt_rtx
from sdxl_trt.engines.build import build
from sdxl_trt.engines.targets import resolve_targets
from sdxl_trt.spec import Profile
export, bundle, *gpus = sys.argv[1:]
profile = Profile.make(smallest=(64, 64), best=(64, 64), largest=(128, 128), batch=2, tokens=8, chunks=2)
print("ready", flush=True)
build(Path(export), Path(bundle), resolve_targets(gpus), profile=profile)
"""


class Killed(NamedTuple):
    """What a killed build left."""

    finished: bool
    engines: int
    leftovers: int


def kill_build(export: Path, bundle: Path, seconds: float) -> Killed:
    """Start a build in a process of its own and kill it after so many seconds of building."""
    command = [sys.executable, "-c", PROGRAM, str(export), str(bundle), *GPUS]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    return Killed(
        finished=(bundle / "bundle.json").exists(),
        engines=len(list(bundle.glob(".pending/*.json"))),
        leftovers=len(list(bundle.rglob(".sdxl-trt-tmp-*"))),
    )


def comparable(manifest: Manifest) -> object:
    """All that must be equal between two builds: everything for onnxruntime; of plans, which differ by some bytes from
    build to build, the key, the tensors and the size within 1 %."""

    def engine(entry: EngineEntry, same_bytes: bool) -> object:
        return entry.key, entry.inputs, entry.outputs, entry.weights, entry.file if same_bytes else None

    return (
        manifest.model,
        manifest.files,
        [
            (
                t.name, t.flavour_version, t.sms, t.precision, t.profile, t.accepted,
                {name: engine(entry, t.flavour == "onnxruntime") for name, entry in t.engines.items()},
            )
            for t in manifest.targets
        ],
    )  # fmt: skip


def test_killed_builds_resume(export: Path, profile: Profile, tmp_path: Path) -> None:
    start = time.monotonic()
    expected = build(export, tmp_path / "undisturbed", resolve_targets(GPUS), profile=profile)
    duration = time.monotonic() - start
    # One moment in each tenth of a build; a fresh process takes a little longer to build than this warm one.
    moments = [1.2 * duration * (i + random.random()) / MOMENTS for i in range(MOMENTS)]
    left = []
    for number, seconds in enumerate(moments):
        bundle = tmp_path / str(number)
        left.append(kill_build(export, bundle, seconds))
        print(f"killed after {seconds:.2f} s of {duration:.2f}: {left[-1]}")
        manifest = build(export, bundle, resolve_targets(GPUS), profile=profile)
        assert comparable(manifest) == comparable(expected)
        assert read_manifest(bundle) == manifest
        blobs = manifest.blobs().values()
        for blob in blobs:
            BlobStore(bundle).verify(blob, "a blob")
        found = {path.name for path in bundle.rglob("*") if path.is_file()}
        assert found == {"bundle.json", ".lock", *(blob.sha256 for blob in blobs)}
        assert not (bundle / ".pending").exists()
    assert any(killed.engines for killed in left), "no build was killed between two engines"
    assert any(not killed.finished for killed in left)


def test_pending_engine_is_used_and_damage_to_it_is_noticed(export: Path, profile: Profile, tmp_path: Path) -> None:
    """As after a kill between the last engine and bundle.json; then with a byte of one plan changed."""
    requests = resolve_targets(GPUS)
    first = build(export, tmp_path, requests, profile=profile)
    entries = [entry for target in first.targets for entry in target.engines.values()]

    def killed_before_the_manifest() -> None:
        (tmp_path / "bundle.json").unlink()
        for entry in entries:
            write_json(tmp_path / ".pending" / f"{entry.key}.json", dataclasses.asdict(entry))

    killed_before_the_manifest()
    again = build(export, tmp_path, requests, profile=profile)
    assert again.targets == first.targets, "the recorded engines are the very ones that are used"

    killed_before_the_manifest()
    (tmp_path / ".pending" / f"{'0' * 64}.json").write_text("{}")  # a record of some other version
    plan = BlobStore(tmp_path).path(first.targets[1].engines["step"].file)
    plan.write_bytes(plan.read_bytes()[:-1] + b"?")
    repaired = build(export, tmp_path, requests, profile=profile)
    assert comparable(repaired) == comparable(first)
    for blob in repaired.blobs().values():
        BlobStore(tmp_path).verify(blob, "a blob")
