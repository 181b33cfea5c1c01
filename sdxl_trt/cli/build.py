"""`sdxl-trt export` and `sdxl-trt build`: a checkpoint becomes graphs, and graphs become engines."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdxl_trt.cli import json_option, print_json
from sdxl_trt.cli.models import DEFAULT_MODEL, export_folder, model_path
from sdxl_trt.cli.progress import shown_progress
from sdxl_trt.cli.run import SIZE
from sdxl_trt.errors import FlavourUnavailable, UsageError
from sdxl_trt.files import check_writable
from sdxl_trt.memory import check_memory
from sdxl_trt.paths import bundles_folder
from sdxl_trt.progress import Progress
from sdxl_trt.spec import Profile, parse_size

if TYPE_CHECKING:
    from sdxl_trt.bundle import Manifest
    from sdxl_trt.exported import ExportIndex

Size = tuple[int, int]

EXPORT_MEMORY = 10**9
"""Bytes: at full size an export has 0.79 GB resident at its peak (benchmarks/fullsize.py)."""

NAMES = ("tensorrt", "tensorrt-rtx", "onnxruntime", "onnxruntime-cuda")
"""Of flavours, as in `sdxl_trt.engines.flavours`, which is not needed for --help."""

MODEL = click.argument("model", default=DEFAULT_MODEL)
VAE = click.option(
    "--vae",
    type=click.Path(path_type=Path),
    help="Another VAE: its folder, or a .safetensors file.  [default: MODEL's]",
)


@click.command("export")
@MODEL
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--precision", "precisions", multiple=True, type=click.Choice(["float16", "float32"]), help="[default: both]"
)
@VAE
@click.option("--unet", "bare_unet", is_flag=True, help="Also the bare UNet, for comparison with torch.")
@json_option
def export_command(
    model: str, output: Path, precisions: tuple[str, ...], vae: Path | None, bare_unet: bool, as_json: bool
) -> None:
    """Write ONNX graphs of MODEL, which name its weights and copy none.

    MODEL is a hub id (owner/name), a folder in diffusers' layout, a .safetensors file, or one that comes with
    sdxl-trt: 'demo', 'demo-turbo' or 'demo-refiner'.
    """
    check_writable(output / "export.json")
    with shown_progress() as progress:
        _, index = export_graphs(
            model, output, precisions or ("float16", "float32"), progress, vae=vae, bare_unet=bare_unet
        )
    if as_json:
        print_json(dataclasses.asdict(index))
        return
    for precision, graphs in index.graphs.items():
        for name, graph in graphs.items():
            click.echo(f"{output / graph.file}  {graph.content.bytes:,} bytes  {precision} {name}")


def export_graphs(
    model: str,
    output: Path | None,
    precisions: Sequence[str],
    progress: Progress,
    *,
    vae: Path | None,
    bare_unet: bool = False,
) -> tuple[Path, ExportIndex]:
    """The folder of an export, by default the one that is kept between builds, and what is in it."""
    check_memory("an export", EXPORT_MEMORY)
    with needing_torch():
        from sdxl_trt.export.run import export_model
    path = model_path(model, progress)
    folder = output or export_folder(path, vae)
    return folder, export_model(path, folder, vae=vae, precisions=precisions, bare_unet=bare_unet, progress=progress)


@contextlib.contextmanager
def needing_torch() -> Iterator[None]:
    """Say what is missing where the exporting room cannot be imported."""
    try:
        yield
    except Exception as error:  # an installation that is broken raises what it likes
        raise FlavourUnavailable(
            "this installation cannot export models",
            got=str(error),
            expected="torch, diffusers and transformers, which exporting alone needs",
            fix="pip install 'sdxl-trt[export]'",
        ) from error


def _check_pair(model: str, refiner: str, vae: Path | None, progress: Progress) -> None:
    """Refuse a refiner that does not go with a model, before the minutes that exports take.

    Raises:
        UsageError: it is none, or has other latents; or the model is a refiner.
    """
    from sdxl_trt.bundle import conflict

    with needing_torch():
        from sdxl_trt.export.checkpoint import open_checkpoint
    base, second = (open_checkpoint(model_path(each, progress), vae, progress).model for each in (model, refiner))
    if error := conflict(base, second):
        raise error


@click.command("build")
@MODEL
@click.option(
    "--gpu",
    "gpus",
    multiple=True,
    required=True,
    help="See `sdxl-trt gpus`; or cpu; or portable, for RTX 30 and later. Repeat.",
)
@click.option("--flavour", type=click.Choice(NAMES), help="[default: the GPU's]")
@click.option("--size", type=SIZE, help="The one size to build for.")
@click.option("--sizes", help="MIN..MAX, as 512x512..1536x1536.  [default: half to one and a half of the model's]")
@click.option("--batch", type=int, default=4, show_default=True, help="Most pictures denoised at once.")
@click.option(
    "--prompt-chunks",
    "chunks",
    type=click.IntRange(1, 100),
    default=4,
    show_default=True,
    help="Longest prompt, in chunks of 75 tokens.",
)
@click.option("--refiner", metavar="MODEL", help="A refiner for the same bundle; what both have alike is stored once.")
@click.option("--weight-streaming", is_flag=True, help="Engines for `run --memory stream`; RTX cannot record them.")
@VAE
@click.option(
    "--vae-tile", type=int, metavar="N", help="Most pixels of an edge that the VAE takes at once; more go in tiles."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Bundle folder.  [default: the data folder]")
@json_option
def build_command(
    model: str,
    gpus: tuple[str, ...],
    flavour: str | None,
    size: Size | None,
    sizes: str | None,
    batch: int,
    chunks: int,
    refiner: str | None,
    weight_streaming: bool,
    vae: Path | None,
    vae_tile: int | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Compile engines of MODEL for one or more GPUs into a bundle.

    MODEL is a hub id (owner/name), a folder in diffusers' layout, a .safetensors file, or one that comes with
    sdxl-trt: 'demo', 'demo-turbo' or 'demo-refiner'.

    What is already built is kept; a build that was stopped goes on where it was. Give the same -o to add targets to a
    bundle.
    """
    from sdxl_trt.engines.build import build
    from sdxl_trt.engines.flavours import check_buildable
    from sdxl_trt.engines.targets import resolve_targets

    make_profile((1024, 1024), size, sizes, batch, chunks, vae_tile)  # refuses what cannot be before minutes of work
    if output:
        check_writable(output / "bundle.json")
    requests = resolve_targets(gpus, flavour, weight_streaming=weight_streaming)
    for request in requests:
        check_buildable(request.flavour, request.sms)
    started = time.monotonic()
    with shown_progress() as progress:
        precisions = list(dict.fromkeys(request.flavour.precision for request in requests))
        if refiner:
            _check_pair(model, refiner, vae, progress)
        export, index = export_graphs(model, None, precisions, progress, vae=vae)
        second = export_graphs(refiner, None, precisions, progress, vae=vae)[0] if refiner else None
        profile = make_profile(index.model.native_size, size, sizes, batch, chunks, vae_tile)
        bundle = output or bundles_folder() / f"{index.model.name}-{index.model.content[:8]}"
        manifest = build(export, bundle, requests, profile=profile, refiner=second, progress=progress)
    _report(bundle, manifest, time.monotonic() - started, as_json)


def make_profile(
    native: Size, size: Size | None, sizes: str | None, batch: int, chunks: int, vae_tile: int | None = None
) -> Profile:
    """The profile of the size options; best at the model's own size where that is in the range.

    Raises:
        UsageError: sizes that cannot be read, are no multiples of 8 or out of order; or a batch or tile out of range.
    """
    smallest, best, largest = _sizes(native, size, sizes)
    return Profile.make(smallest=smallest, best=best, largest=largest, batch=batch, chunks=chunks, vae_tile=vae_tile)


def _sizes(native: Size, size: Size | None, sizes: str | None) -> tuple[Size, Size, Size]:
    """The smallest, the best and the largest."""
    if size and sizes:
        raise UsageError("give --size or --sizes, not both", fix="--sizes 512x512..1536x1536")
    if size:
        return size, size, size
    if sizes is None:
        smallest, largest = ((native[0] * n // 16 * 8, native[1] * n // 16 * 8) for n in (1, 3))
        return smallest, native, largest
    least, separator, most = sizes.partition("..")
    if not separator:
        raise UsageError("--sizes cannot be read", got=sizes, expected="MIN..MAX", fix="--sizes 512x512..1536x1536")
    low, high = parse_size(least), parse_size(most)
    best = (min(max(native[0], low[0]), high[0]), min(max(native[1], low[1]), high[1]))
    return low, best, high


def _report(bundle: Path, manifest: Manifest, seconds: float, as_json: bool) -> None:
    targets: list[dict[str, Any]] = [
        {
            "name": target.name,
            "accepted": target.accepted,
            "bytes": sum({engine.file.sha256: engine.file.bytes for _, engine in target.all_engines()}.values()),
            "refiner": bool(target.refiner),
        }
        for target in manifest.targets
    ]
    if as_json:
        print_json({"bundle": str(bundle), "targets": targets, "seconds": round(seconds, 3)})
        return
    for target in targets:
        state = "accepted here" if target["accepted"] else "built, not yet run on its GPU"
        refined = ", with a refiner" if target["refiner"] else ""
        click.echo(f"{target['name']}  {target['bytes']:,} bytes of engines{refined}, {state}")
    click.echo(str(bundle))
