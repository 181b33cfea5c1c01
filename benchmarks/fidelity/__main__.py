"""`python -m benchmarks.fidelity`: the matrix of samplers beside diffusers."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

import click

from benchmarks.fidelity.cases import Absence, Case, absences, cases
from benchmarks.fidelity.document import as_json, as_markdown, line, summary
from benchmarks.fidelity.matrix import Comparison, Row, merged, spread
from benchmarks.fidelity.models import prepare
from benchmarks.report import RESULTS
from sdxl_trt.bench.peer import be_quiet
from sdxl_trt.files import write_json
from sdxl_trt.paths import cache_folder

DOCUMENT = Path(__file__).parents[2] / "docs" / "fidelity.md"
QUICK = 60.0
"""Seconds that `--quick` takes, once its models are built."""


@click.command("fidelity")
@click.option(
    "--quick", is_flag=True, help=f"Some rows of every sampler and task, {QUICK:.0f} seconds; writes nothing."
)
@click.option("--only", default="", help="Rows whose name has this in it; writes nothing.")
def main(quick: bool, only: str) -> None:
    """Compare final latents of every sampler, spacing, prediction and task with diffusers' pipelines.

    Writes benchmarks/results/fidelity.json and docs/fidelity.md. Exit status 1 if a row fails.
    """
    be_quiet()
    import torch

    torch.set_num_threads(1)
    comparison = Comparison(*prepare(cache_folder() / "fidelity"))
    chosen = [case for case in (spread() if quick else cases()) if only in str(case)]
    rows, refused = run(comparison, chosen, QUICK if quick else float("inf"))
    click.echo(summary(rows))
    if not (quick or only):
        absent = merged([*absences(), *refused])
        write_json(RESULTS / "fidelity.json", as_json(rows, absent))
        DOCUMENT.write_text(as_markdown(rows, absent), encoding="utf-8")
    sys.exit(any(row.failed for row in rows))


def run(comparison: Comparison, chosen: Iterable[Case], seconds: float) -> tuple[list[Row], list[Absence]]:
    """Rows, and what diffusers refused; cases that begin after so many seconds are left out."""
    rows: list[Row] = []
    refused: list[Absence] = []
    end = time.monotonic() + seconds
    for case in chosen:
        if time.monotonic() > end:
            break
        found = comparison.compare(case)
        if isinstance(found, Row):
            rows.append(found)
            click.echo(line(found))
        else:
            refused.append(found)
            click.echo(f"not compared  {case}  ({found.reason})")
    return rows, refused


main()
