"""All that is to be known of this host's GPU: `python -m benchmarks.gpu`, or ./scripts/gpu.

Builds the demo model and, at full size with random weights, base and Turbo for the flavour of engines that the GPU can
have; runs the tests that need a GPU; benches all three beside diffusers. One JSON file says what came of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click

from benchmarks.report import RESULTS
from sdxl_trt.bench.machine import machine
from sdxl_trt.bench.report import FILES
from sdxl_trt.errors import SdxlTrtError
from sdxl_trt.files import write_json
from sdxl_trt.gpus import find_gpu
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.host import choose_flavour, this_host

CLI = (sys.executable, "-m", "sdxl_trt")
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is built and benched."""

    edge: int
    """Width and height in pixels."""
    settings: tuple[str, ...]
    """Of the bench."""
    fullsize: bool = True


MODELS = {
    "demo": Model(edge=128, settings=("--steps", "30", "--guidance", "5"), fullsize=False),
    "base": Model(edge=1024, settings=("--steps", "30", "--guidance", "5")),
    "turbo": Model(edge=512, settings=("--steps", "1", "--guidance", "1")),
}


def describe() -> dict[str, Any]:
    """The GPU of this host and the flavour for it; it is free again afterwards.

    Raises:
        FlavourUnavailable: there is none that can be used; or no flavour.
        UnknownName: the catalogue has no such GPU.
    """
    with CudaDevice() as device:
        flavours, memory = this_host(device).flavours, device.memory()
        flavour = choose_flavour(device.sm, flavours)
        return {
            "key": find_gpu(device.name).key,
            "name": device.name,
            "sm": device.sm,
            "driver_cuda": device.cuda_version,
            "memory_bytes": memory.total,
            "free_bytes": memory.free,
            "flavour": flavour,
            "flavour_version": flavours[flavour],
        }


def build(name: str, gpu: Mapping[str, Any], folder: Path) -> None:
    """A model's engines for the GPU; what is there already is kept.

    Raises:
        subprocess.CalledProcessError: it failed; its own message was printed.
    """
    model, checkpoint = MODELS[name], checkpoint_of(name, folder)
    if model.fullsize:
        subprocess.run([sys.executable, "-m", "benchmarks.fullsize", "make", folder, "--kind", name], check=True)
    size = ("--size", f"{model.edge}x{model.edge}", "--batch", "4")
    options = ("--gpu", gpu["key"], "--flavour", gpu["flavour"], *size, "-o", folder / f"{name}-bundle")
    subprocess.run([*CLI, "build", checkpoint, *options], check=True)


def checkpoint_of(name: str, folder: Path) -> str:
    """What `build` and the peers are given."""
    return str(folder / name) if MODELS[name].fullsize else name


def bench(name: str, folder: Path, repeats: int) -> dict[str, Any]:
    """The report of `sdxl-trt bench`; without a report, what it failed with."""
    output, settings = folder / f"{name}-bench", (*MODELS[name].settings, "--repeats", str(repeats))
    places = ("--device", "cuda", "--peer", checkpoint_of(name, folder), "-o", output)
    done = subprocess.run([*CLI, "bench", folder / f"{name}-bundle", *places, *settings], check=False)
    if done.returncode:
        return {"failed": f"exit status {done.returncode}"}
    report: dict[str, Any] = json.loads((output / FILES[0]).read_text(encoding="utf-8"))
    return report


def run_tests(folder: Path) -> dict[str, int]:
    """How many of the tests that need a GPU passed, failed and were skipped; reasons are printed."""
    results = folder / "tests.xml"
    results.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-s", "tests/gpu", f"--junitxml={results}"]
    subprocess.run(command, check=False, cwd=ROOT, env=os.environ | {"SDXL_TRT_FULLSIZE": str(folder.resolve())})
    return count_tests(results.read_text(encoding="utf-8"))


def count_tests(junit: str) -> dict[str, int]:
    """passed, failed and skipped, from what pytest writes for JUnit."""
    suites = list(ElementTree.fromstring(junit).iter("testsuite"))
    total, skipped = (sum(int(suite.attrib[name]) for suite in suites) for name in ("tests", "skipped"))
    failed = sum(int(suite.attrib[name]) for suite in suites for name in ("failures", "errors"))
    return {"passed": total - skipped - failed, "failed": failed, "skipped": skipped}


@click.command()
@click.option("--fullsize/--no-fullsize", default=True, help="Also base and Turbo at full size (about 40 GB of disk).")
@click.option("--tests/--no-tests", default=True, help="Run tests/gpu.  [default: --tests]")
@click.option("--repeats", type=click.IntRange(1), default=10, show_default=True, help="Calls that are counted.")
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path("out/gpu"), show_default=True, help="To work in."
)
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the JSON file.")
def main(fullsize: bool, tests: bool, repeats: int, folder: Path, output: Path) -> None:
    """Build, test and bench on the GPU of this host, and write what was found to OUTPUT/<gpu>.json."""
    try:
        gpu = describe()
    except SdxlTrtError as error:
        raise click.ClickException(str(error)) from error
    engines = f"{gpu['flavour']} {gpu['flavour_version']}"
    click.echo(f"{gpu['name']}, SM {gpu['sm']}, {gpu['free_bytes'] / 1e9:.1f} GB free; {engines}", err=True)
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name, model in MODELS.items() if fullsize or not model.fullsize]
    for name in names:
        build(name, gpu, folder)
    counts = run_tests(folder) if tests else {}
    benches = {name: bench(name, folder, repeats) for name in names}
    path = output / f"{gpu['key']}.json"
    write_json(path, {"gpu": gpu, "machine": machine(), "tests": counts, "benches": benches})
    click.echo(str(path))
    if counts.get("failed") or any("failed" in each for each in benches.values()):
        raise click.ClickException("some of it failed; the file says what")


if __name__ == "__main__":
    main()
