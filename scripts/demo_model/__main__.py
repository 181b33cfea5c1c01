"""`scripts/train_demo`: train the demo model, stage after stage."""

from __future__ import annotations

import multiprocessing
import tempfile
from dataclasses import replace
from pathlib import Path

import click

from scripts.demo_model.stages import STEPS, work
from scripts.demo_model.training import Run


def parse_steps(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """`STAGE=N` pairs over the defaults."""
    steps = dict(STEPS)
    for value in values:
        stage, _, number = value.partition("=")
        if stage not in STEPS or not number.isdecimal():
            raise click.BadParameter(f"{value!r}; expected STAGE=N, with STAGE one of {', '.join(STEPS)}")
        steps[stage] = int(number)
    return steps


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/train"), show_default=True)
@click.option("--device", default="cpu", show_default=True, help="Of PyTorch: cpu, cuda, cuda:1.")
@click.option("--workers", type=click.IntRange(1), help="Processes of one thread.  [default: 2 on the CPU, else 1]")
@click.option("--seed", type=int, default=1, show_default=True, help="Of weights, pictures and noise.")
@click.option("--steps", multiple=True, callback=parse_steps, metavar="STAGE=N", help="How long a stage trains.")
@click.option("--save-seconds", type=float, default=60.0, show_default=True, help="How often states are saved.")
@click.option("--shard", type=click.IntRange(2), default=512, show_default=True, help="Pictures encoded at a time.")
@click.option(
    "--start",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of base and student, for what the stages before 'soft-vae' give.",
)
def main(
    out: Path,
    device: str,
    workers: int | None,
    seed: int,
    steps: dict[str, int],
    save_seconds: float,
    shard: int,
    start: Path | None,
) -> None:
    """Train the demo model: autoencoder, text encoders and UNet, student, softness, refiner.

    It goes on from the states in the folder OUT, so it may be killed at any moment and started again. Finished
    checkpoints are in OUT/result.
    """
    workers = workers or (2 if device == "cpu" else 1)
    run = Run(folder=out, device=device, seed=seed, workers=workers, save_seconds=save_seconds, shard=shard)
    with tempfile.TemporaryDirectory() as meeting:
        address = (Path(meeting) / "workers").as_uri()
        fresh = multiprocessing.get_context("spawn")
        for rank in range(1, workers):
            fresh.Process(target=work, args=(replace(run, rank=rank), steps, address, start), daemon=True).start()
        work(run, steps, address, start)


if __name__ == "__main__":
    main()
