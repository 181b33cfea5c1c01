"""Shipping a bundle to a registry on this machine and back: `python -m benchmarks.ship [--mebibytes N]`.

The bundle is of random bytes: nine tenths are a TensorRT plan in content-defined chunks, one tenth a file that stays
whole. It is pushed, pushed again, pulled, and pulled again, each in a process of its own; then the Python client of
oras does the same with the same files (its second push and pull too), at a fresh registry. The registry is Debian's
docker-registry, whose own work is part of every time. Memory is the most of the client's process, looked at ten times a
second. Files come from the page cache as far as there is room for them.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.oci_registry import Running, registry
from benchmarks.report import RESULTS, Aim, Report, publish
from benchmarks.watch import watch
from sdxl_trt.bench.rows import Row
from sdxl_trt.bundle import Blob, BlobStore, EngineEntry, Manifest, Target, write_manifest
from sdxl_trt.spec import ModelSpec, Profile, UNetSpec, VaeSpec

OURS, THEIRS = "sdxl-trt", "oras (Python)"
MOST_MEMORY = 200
"""MB."""
_BLOCK = 2**22
_ORAS = """
import sys
from pathlib import Path
from oras.client import OrasClient
way, host, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
client = OrasClient(insecure=True, hostname=host)
if way == "push":
    files = sorted(str(path) for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    client.push(target=f"{host}/bench/oras:1", files=files, disable_path_validation=True)
else:
    client.pull(target=f"{host}/bench/oras:1", outdir=str(folder))
"""

Samples = dict[tuple[str, str, str], list[float]]
"""By who, what and unit."""


def make_bundle(folder: Path, size: int) -> None:
    """Write a bundle of `size` random bytes."""
    store = BlobStore(folder)
    with store.lock():
        with store.chunk_writer() as chunker:
            for block in _random(size * 9 // 10):
                chunker.write(block)
        with store.writer() as writer:
            for block in _random(size // 10):
                writer.write(block)
        table = store.name_chunks(writer.blob())
        write_manifest(folder, _manifest(chunker.blob(), table))


def _random(size: int) -> Iterator[bytes]:
    for start in range(0, size, _BLOCK):
        yield os.urandom(min(_BLOCK, size - start))


def _manifest(plan: Blob, table: Blob) -> Manifest:
    entry = EngineEntry(key="0" * 64, file=plan, inputs=(), outputs=())
    target = Target(
        name="rtx-portable",
        flavour="tensorrt-rtx",
        flavour_version="1.7",
        sms=(),
        processor=platform.machine(),
        precision="float16",
        profile=Profile.make(smallest=(512, 512), best=(1024, 1024), largest=(1024, 1024), batch=1),
        accepted=False,
        engines={"step": entry},
    )
    model = ModelSpec(
        name="random",
        content="0" * 64,
        kind="base",
        text_encoders=(),
        unet=UNetSpec(channels=4, text=8, pooled=8, time_ids=6, guidance_embedding=0, sample_size=128),
        vae=VaeSpec(scaling_factor=0.13025, force_upcast=True),
        zero_negative=True,
        scheduler={"_class_name": "EulerDiscreteScheduler"},
    )
    files = {"text_encoder/token_embedding.npy": table}
    created = "2026-01-01T00:00:00+00:00"
    return Manifest(tool="benchmark", created=created, model=model, files=files, targets=(target,))


def _timed(samples: Samples, who: str, what: str, command: list[str], log: Path) -> None:
    found = watch(command, log=log)
    samples[who, what, "s"].append(found.seconds)
    samples[who, what, "MB at most"].append(found.resident / 1e6)


def _ours(samples: Samples, bundle: Path, running: Running, work: Path) -> None:
    program = [sys.executable, "-m", "sdxl_trt", "ship"]
    push = [*program, "push", str(bundle), running.oci("bench/ours:1"), "--json"]
    pull = [*program, "pull", running.oci("bench/ours:1"), "--gpu", "rtx3060", "-o", str(work / "pulled"), "--json"]
    for what, command, field in (
        ("push", push, "sent_bytes"),
        ("second push", push, "sent_bytes"),
        ("pull", pull, "fetched_bytes"),
        ("second pull", pull, "fetched_bytes"),
    ):
        log = work / "log"
        _timed(samples, OURS, what, command, log)
        said: dict[str, Any] = json.loads(
            "{" + log.read_text(encoding="utf-8").partition("{")[2].rpartition("}")[0] + "}"
        )
        samples[OURS, what, "MB sent" if field == "sent_bytes" else "MB fetched"].append(said[field] / 1e6)


def _theirs(samples: Samples, bundle: Path, running: Running, work: Path) -> None:
    for what, way, folder in (
        ("push", "push", bundle),
        ("second push", "push", bundle),
        ("pull", "pull", work / "pulled"),
        ("second pull", "pull", work / "pulled"),
    ):
        command = [sys.executable, "-c", _ORAS, way, running.host, str(folder)]
        _timed(samples, THEIRS, what, command, work / "log")


def _once(samples: Samples, bundle: Path, folder: Path) -> None:
    """Each side with a registry of its own, whose files are gone before the next one starts."""
    for number, side in enumerate((_ours, _theirs)):
        work = folder / str(number)
        with registry(work / "registry") as running, contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, work)
            side(samples, bundle, running, work)


def measure(mebibytes: int, runs: int, folder: Path) -> Report:
    """Both sides, one after the other, so many times."""
    samples: Samples = defaultdict(list)
    bundle = folder / "built" / "bundle"
    make_bundle(bundle, mebibytes * 2**20)
    for _ in range(runs):
        _once(samples, bundle, folder)
    rows = {key: Row(who=key[0], what=key[1], unit=key[2], samples=tuple(found)) for key, found in samples.items()}
    memory = [Aim(row=rows[OURS, what, "MB at most"], bound=MOST_MEMORY, at_most=True) for what in ("push", "pull")]
    nothing = [
        Aim(row=rows[OURS, what, unit], bound=0, at_most=True)
        for what, unit in (("second push", "MB sent"), ("second pull", "MB fetched"))
    ]
    return Report(
        title="A bundle to a registry on this machine, and back",
        settings={"bytes": mebibytes * 2**20, "registry": "docker-registry 2.8 (Debian)"},
        distributions=("oras", "httpx2", "requests"),
        rows=list(rows.values()),
        aims=(*memory, *nothing),
        notes=(
            "sdxl-trt checks every hash, of what it pulls and of what is here at a second pull; oras checks none",
            "the registry's own work on the same processors is part of every time",
        ),
    )


@click.command(help=__doc__)
@click.option("--mebibytes", type=click.IntRange(1), default=1024, show_default=True, help="Of the bundle.")
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Of everything.")
@click.option("--folder", type=click.Path(path_type=Path), help="For its files, four times the bundle.")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the JSON file.")
def main(mebibytes: int, runs: int, folder: Path | None, output: Path) -> None:
    """Measure, and write ship.json."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        publish("ship", lambda: measure(mebibytes, runs, Path(work)), output)


if __name__ == "__main__":
    main()
