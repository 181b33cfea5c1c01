"""Hostile manifests in great number: each accepted, or refused with one of this project's errors, and nothing else."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from benchmarks.fuzzing.tally import Tally, fuzz
from benchmarks.report import RESULTS, Report, publish
from sdxl_trt.bench.rows import Row


@click.command("fuzz")
@click.option("--manifests", type=click.IntRange(1), default=100_000, show_default=True, help="How many.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=3600, show_default=True, help="At most.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of all chance.")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the JSON file.")
def main(manifests: int, seconds: float, seed: int, output: Path) -> None:
    """Try manifests made of valid ones and of nothing; exit status 1 if one raises what it may not."""
    with tempfile.TemporaryDirectory() as folder:
        tally = fuzz(Path(folder), wanted=manifests, seconds=seconds, seed=seed)
    publish("fuzz", lambda: report(tally, seed), output)
    if tally.faults:
        raise click.ClickException(f"{len(tally.faults)} faults, the first:\n{tally.faults[0]['trace']}")


def report(tally: Tally, seed: int) -> Report:
    """Fates by number."""
    rows = [Row(who=name, what="manifests", unit="", samples=(count,)) for name, count in tally.fates.most_common()]
    return Report(
        title="Hostile manifests, and what became of them",
        settings={"manifests": len(tally.seen), "seed": seed},
        distributions=("sdxl-trt",),
        rows=rows,
        notes=(
            f"no two alike; {len(tally.seen) / tally.seconds:,.0f} a second",
            "accepted: parsed, chosen from, explained, dated, written, read again and loaded up to the missing files",
            f"{len(tally.faults)} raised anything but an error of this project",
        ),
        details={"faults": tally.faults[:20], "seconds": tally.seconds},
        timed=False,
    )


if __name__ == "__main__":
    main()
