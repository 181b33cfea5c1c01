"""`sdxl-trt bench`: what a bundle takes on this host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdxl_trt.bench import PROMPT
from sdxl_trt.cli import json_option, print_json
from sdxl_trt.cli.bundles import open_bundle
from sdxl_trt.cli.progress import shown_progress
from sdxl_trt.cli.run import SIZE
from sdxl_trt.errors import UsageError
from sdxl_trt.files import check_writable
from sdxl_trt.paths import DEMO_MODELS

if TYPE_CHECKING:
    from sdxl_trt.runtime.device import Device
    from sdxl_trt.runtime.loading import Loaded


class BatchesType(click.ParamType[tuple[int, ...]]):
    """`1,2,4`: pictures at once, ascending."""

    name = "N,N,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Parse, with click's own way to complain."""
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"\d{1,3}(,\d{1,3})*", value):
            self.fail(f"{value!r} is not a list of numbers, as 1,2,4", param, ctx)
        batches = tuple(sorted({int(part) for part in value.split(",")}))
        return batches if batches[0] else self.fail(f"{value!r}: one picture is the least", param, ctx)


@click.command("bench")
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--device", default="cpu", show_default=True, help="cpu; cuda, or cuda:1 for the second GPU.")
@click.option("--size", type=SIZE, help="Width and height in pixels.  [default: the model's own]")
@click.option("--steps", type=int, help="Denoising steps.  [default: the model's]")
@click.option("--guidance", type=float, help="Guidance scale; 1 or less turns it off.  [default: the model's]")
@click.option("--batch", "batches", type=BatchesType(), help="Pictures at once.  [default: 1,2,4, as far as it goes]")
@click.option("--repeats", type=click.IntRange(1, 10_000), default=5, show_default=True, help="Calls that are counted.")
@click.option(
    "--peer", "checkpoint", metavar="CHECKPOINT", help="What diffusers loads: a folder in its layout, or demo."
)
@click.option("--no-peer", is_flag=True, help="Leave diffusers out.")
@click.option(
    "--compile/--no-compile", "compiled", default=None, help="diffusers with torch.compile.  [default: on a GPU]"
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all this process may use]")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("sdxl-trt-bench"), show_default=True,
              help="Folder of bench.json, bench.md and, where there is one, roofline.svg.")  # fmt: skip
@json_option
def bench_command(
    bundle: Path | None, checkpoint: str | None, no_peer: bool, output: Path, as_json: bool, **how: Any
) -> None:
    """Measure BUNDLE on this host: each stage, step and engine, beside diffusers where that is installed.

    BUNDLE is a folder, or 'demo'; else the newest bundle that fits this host. One call of each batch size warms up, and
    is reported by itself. diffusers draws in processes of its own afterwards, eager and with torch.compile.
    """
    from sdxl_trt.bench.run import Plan, bench
    from sdxl_trt.runtime.request import Request

    check_writable(output / "bench.json")
    request = Request(prompt=PROMPT, **{name: how.pop(name) for name in ("size", "steps", "guidance")})
    plan = Plan(request=request, checkpoint=_checkpoint(checkpoint, no_peer), peers=not no_peer, **how)
    with shown_progress() as progress:
        report = bench(plan, lambda device: _open(bundle, device, plan.threads), progress)
    files = report.write(output)
    if as_json:
        print_json(report.as_json() | {"files": [str(file) for file in files]})
        return
    click.echo(report)
    for file in files:
        click.echo(str(file))


def _open(bundle: Path | None, device: Device, threads: int | None) -> tuple[Loaded, Path]:
    from sdxl_trt.runtime.loading import load

    return open_bundle(bundle, lambda folder: load(folder, threads=threads, refiner=False, device=device))


def _checkpoint(name: str | None, no_peer: bool) -> Path | None:
    """The folder that a peer loads.

    Raises:
        UsageError: it is none; or peers are left out.
    """
    if name is None:
        return None
    if no_peer:
        raise UsageError("give --peer or --no-peer, not both", fix="--peer CHECKPOINT")
    folder = DEMO_MODELS.get(name) or Path(name)
    if not (folder / "model_index.json").is_file():
        raise UsageError(
            f"diffusers cannot load {name}",
            got="no model_index.json in it" if folder.is_dir() else "no such folder",
            expected="a checkpoint's folder in diffusers' layout, or demo",
            fix="--peer FOLDER, or --no-peer",
        )
    return folder
