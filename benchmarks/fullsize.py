"""SDXL at its true size, with random weights: `python -m benchmarks.fullsize make | export | build | picture DIR`.

Each measured command is a process of its own, watched from outside. The peer of the export is the usual way: the
modules loaded with their weights, and torch.onnx.export's older exporter, which writes the weights again.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from benchmarks.fullsize_model import make
from benchmarks.fullsize_picture import EDGE, measure_picture
from benchmarks.report import RESULTS, Aim, Report, publish
from benchmarks.watch import Watched, watch
from sdxl_trt.bench.rows import Row
from sdxl_trt.bundle import read_manifest

CLI = (sys.executable, "-m", "sdxl_trt")
EXPORTERS = ("torch", "diffusers", "transformers", "onnx", "onnx-ir", "onnxscript")
EXPORT_SECONDS, EXPORT_BYTES = 150.0, 1.5e9
STEP_SECONDS, STEP_BYTES = 120.0, 11e9
PROFILE = ("--sizes", "512x512..1536x1536", "--batch", "4")

KINDS = ("base", "refiner", "turbo")

PLANS = {
    "SM 86": ("rtx3060",),
    "SM 80, 86, 89, 120, 121": ("a100", "rtx3060", "rtx4090", "rtx5090", "spark"),
    "portable": ("portable",),
}
"""Kinds of plan by the GPUs that are named for them. (SM 75 takes no float32 VAE.)"""

DIR = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
OUTPUT = click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the JSON file.")


@click.group()
def main() -> None:
    """Work at SDXL's true size, in DIR (about 45 GB)."""


@main.command("make")
@DIR
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Repeat for several.  [default: all]")
def make_command(folder: Path, kinds: tuple[str, ...]) -> None:
    """Write the checkpoints: base, refiner and Turbo, random float16 weights of the true shapes in the true layout."""
    for kind in kinds or KINDS:
        if kind == "turbo":
            _link_weights(folder / "base", folder / "turbo")
        make(folder / kind, kind)
        click.echo(f"{folder / kind}")


def _link_weights(base: Path, turbo: Path) -> None:
    """Turbo has base's shapes, and random values may be the same."""
    for path in base.rglob("*.safetensors"):
        link = turbo / path.relative_to(base)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.hardlink_to(path)


@main.command("export")
@DIR
@click.option("--peer/--no-peer", default=True, help="Also the usual way, beside ours.  [default: --peer]")
@OUTPUT
def export_command(folder: Path, peer: bool, output: Path) -> None:
    """Time and memory of the export of all graphs in float16."""
    publish("fullsize_export", lambda: measure_export(folder, peer), output)


@main.command("build")
@DIR
@OUTPUT
def build_command(folder: Path, output: Path) -> None:
    """Time, memory and bytes of base's plans for one and for several compute capabilities."""
    publish("fullsize_build", lambda: measure_build(folder), output)


@main.command("picture")
@DIR
@OUTPUT
def picture_command(folder: Path, output: Path) -> None:
    """One picture of the Turbo-like model on this CPU, beside diffusers."""
    bundle = folder / "turbo-bundle"
    size, log = f"{EDGE}x{EDGE}", _log(bundle)
    watch([*CLI, "build", folder / "turbo", "--gpu", "cpu", "--size", size, "--batch", "1", "-o", bundle], log=log)
    publish("fullsize_picture", lambda: measure_picture({"ours": bundle, "theirs": folder / "turbo"}, folder), output)


def measure_export(folder: Path, peer: bool) -> Report:
    """Our export of base and refiner, and the usual way for base's graphs."""
    rows: list[Row] = []
    for kind in ("base", "refiner"):
        target = folder / f"{kind}-export"
        shutil.rmtree(target, ignore_errors=True)
        watched = watch(
            [*CLI, "export", folder / kind, "-o", target, "--precision", "float16", "--json"], log=_log(target)
        )
        written = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
        rows += _rows("sdxl-trt", f"export of {kind}, all graphs", watched, written)
    for graphs in (("unet",), ("text_encoder", "text_encoder_2", "unet", "vae")) if peer else ():
        target = folder / "peer-export"
        watched = watch(
            [sys.executable, "-m", "benchmarks.peer_export", folder / "base", target, *graphs], log=_log(target)
        )
        written = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
        what = f"export of base, {'all graphs' if len(graphs) > 1 else 'the UNet'}"
        rows += _rows("torch.onnx.export", what, watched, written)
        shutil.rmtree(target)
    return Report(
        title="Export at full size, float16",
        settings={"weights": "random, of the true shapes"},
        distributions=("sdxl-trt", *EXPORTERS),
        rows=rows,
        aims=[Aim(row=rows[0], bound=EXPORT_SECONDS, at_most=True), Aim(row=rows[1], bound=EXPORT_BYTES, at_most=True)],
        notes=("Bytes of sdxl-trt are graphs, tokenizers and token embedding tables: no other weight is written.",),
    )


def measure_build(folder: Path) -> Report:
    """All plans of base for each of `PLANS`."""
    rows: list[Row] = []
    for name, gpus in PLANS.items():
        bundle = folder / "bundle"
        shutil.rmtree(bundle, ignore_errors=True)
        named = [part for gpu in gpus for part in ("--gpu", gpu)]
        command: list[str | Path] = [
            *CLI,
            "build",
            folder / "base",
            *named,
            "--flavour",
            "tensorrt-rtx",
            *PROFILE,
            "-o",
            bundle,
            "--json",
        ]
        watched = watch(command, log=_log(bundle))
        (target,) = read_manifest(bundle).targets
        for graph, engine in target.engines.items():
            size = Row(who="tensorrt-rtx", what=f"{graph}, {name}: plan", unit="bytes", samples=(engine.file.bytes,))
            rows += [_stage(_log(bundle), f"build {target.name} {graph}", f"{graph}, {name}: time"), size]
        anonymous = Row(
            who="sdxl-trt", what=f"all, {name}: peak anonymous memory", unit="bytes", samples=(watched.anonymous,)
        )
        rows += [Row(who="sdxl-trt", what=f"all, {name}: time", unit="s", samples=(watched.seconds,)), anonymous]
        shutil.rmtree(bundle)
    step = next(row for row in rows if row.what == "step, SM 86: time")
    memory = next(row for row in rows if row.what == "all, SM 86: peak anonymous memory")
    return Report(
        title="Build at full size without a GPU",
        settings={"profile": " ".join(PROFILE)},
        distributions=("sdxl-trt", "tensorrt-rtx-cu13"),
        rows=rows,
        aims=[Aim(row=step, bound=STEP_SECONDS, at_most=True), Aim(row=memory, bound=STEP_BYTES, at_most=True)],
        notes=("Memory is that of all processes together, looked at every 0.1 s; mapped weights are not in it.",),
    )


def _log(folder: Path) -> Path:
    """Where the output of the command that writes `folder` goes."""
    return folder.with_name(folder.name + ".log")


def _stage(log: Path, stage: str, what: str) -> Row:
    """The time that the command line gave for a stage."""
    line = next(line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith(f"{stage} … "))
    return Row(who="tensorrt-rtx", what=what, unit="s", samples=(float(line.split()[-2]),))


def _rows(who: str, what: str, watched: Watched, written: int) -> list[Row]:
    figures = (
        ("time", "s", watched.seconds),
        ("peak memory", "bytes", watched.resident),
        ("written", "bytes", written),
    )
    return [Row(who=who, what=f"{what}: {figure}", unit=unit, samples=(value,)) for figure, unit, value in figures]


if __name__ == "__main__":
    main()
