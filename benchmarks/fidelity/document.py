"""The matrix as JSON, as Markdown, and as lines on a terminal."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final

from benchmarks.fidelity.cases import STEPS, TASKS, Absence
from benchmarks.fidelity.matrix import BOUND, REMARKABLE, ROUNDED_BOUND, Row
from benchmarks.fidelity.models import EDGE, SDXL
from benchmarks.fidelity.sides import GUIDANCE, HANDED_OVER_AT, IMAGE_STRENGTH, INPAINT_STRENGTH, PROMPT, SEED
from sdxl_trt.bench.machine import machine, versions

PACKAGES: Final = ("sdxl-trt", "onnxruntime", "numpy", "torch", "diffusers", "transformers", "scipy", "torchsde")
INTRODUCTION: Final = f"""\
# How close the samplers are to diffusers

Written by `./scripts/fidelity`; every number is in [`fidelity.json`](../benchmarks/results/fidelity.json), with the
whole scheduler config of each row.

A number is the largest difference between final latents of sdxl-trt and of diffusers, in parts of the largest
magnitude of diffusers' latents, after {STEPS} steps. Both sides run the same tiny base and refiner
(`benchmarks/fidelity/models.py`: random weights, the last layer fitted to predict noise) with the same prompt at
{EDGE}×{EDGE} pixels, guidance {GUIDANCE:g}, seed {SEED}: sdxl-trt its CPU bundle, diffusers its own SDXL pipelines,
eager. A prediction type is what the scheduler takes the network's output for.

* **text**: StableDiffusionXLPipeline. **image**: StableDiffusionXLImg2ImgPipeline, strength {IMAGE_STRENGTH:g}, so that
  {int(STEPS * IMAGE_STRENGTH)} of the {STEPS} steps are done. **inpaint**: StableDiffusionXLInpaintPipeline, a UNet of
  four channels, strength {INPAINT_STRENGTH:g}. **ensemble**: the base up to denoising_end={HANDED_OVER_AT:g}, then the
  refiner from denoising_start={HANDED_OVER_AT:g}.
* Every row's reference computes in **float32** and draws from **one torch CPU generator**. Its scheduler is the class
  named, with SDXL's config (`stabilityai/stable-diffusion-xl-base-1.0`) but for the entries shown.
* Karras', exponential and beta σ, σ down to sigma_min and other amounts of noise (eta) go with SDXL's own `leading`
  timesteps, zero SNR with `trailing` ones.
* A row passes at {BOUND:g}; at {ROUNDED_BOUND:g} where diffusers' float32 is shown to be further than sdxl-trt from
  diffusers' own pipeline in float64 (schedule, coefficients, network and all, with the same noise), and such rows say
  so. Both distances are shown, in a table of their own, for every row above {REMARKABLE:g}.
* 1 % more in one coefficient of the first step makes a row fail (`tests/benchmarks/test_fidelity.py`). In the last
  steps, where the network's output counts for little, it is seen at about 1e-4: below the bound, and far above what
  nearly all rows have.
* Where diffusers has no such sampler there is no row, and k-diffusion's own function is the reference, in float64
  (`tests/runtime/test_k_diffusion.py`); the second table says where.
"""


def as_json(rows: Sequence[Row], absent: Sequence[Absence]) -> dict[str, Any]:
    """Everything, with the machine, the versions and the time."""
    return {
        "title": "Final latents against diffusers",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(PACKAGES),
        "settings": {
            "prompt": PROMPT,
            "size": [EDGE, EDGE],
            "steps": STEPS,
            "guidance": GUIDANCE,
            "seed": SEED,
            "strength": {"image": IMAGE_STRENGTH, "inpaint": INPAINT_STRENGTH},
            "handed_over_at": HANDED_OVER_AT,
        },
        "summary": {"rows": len(rows), "passed": sum(row.passed for row in rows)},
        "rows": [row.as_json() for row in rows],
        "not_compared": [vars(each) for each in absent],
    }


def as_markdown(rows: Sequence[Row], absent: Sequence[Absence]) -> str:
    """The document, without a date."""
    host = machine()
    made = ", ".join(f"{name} {version}" for name, version in versions(PACKAGES).items())
    parts = [
        INTRODUCTION,
        f"Machine: {host['cpu']}, {host['os']}, Python {host['python']}. Versions: {made}.\n",
        f"**{summary(rows)}**\n",
        "## Compared\n",
        *_table(("sampler", "variant", "prediction", *TASKS, "diffusers' scheduler"), _lines(rows)),
        *_exceptions([row for row in rows if row.error > REMARKABLE]),
        "\n## Not compared\n",
        *_table(("sampler", "variant", "predictions", "tasks", "reason"), map(_absence, absent)),
    ]
    return "\n".join(parts) + "\n"


def summary(rows: Sequence[Row]) -> str:
    """One sentence."""
    strict = sum(row.passed and row.bound == BOUND for row in rows)
    loose = sum(row.passed and row.bound != BOUND for row in rows)
    listed = sum(not row.passed and not row.failed for row in rows)
    failed = sum(row.failed for row in rows)
    return (
        f"{len(rows)} rows: {strict} pass at {BOUND:g}, {loose} at {ROUNDED_BOUND:g}, "
        f"{listed} are listed with their reason, {failed} fail."
    )


def line(row: Row) -> str:
    """A row on a terminal."""
    verdict = "pass" if row.passed else "FAIL" if row.failed else "listed"
    more = f"  ({row.reason})" if row.reason else ""
    return f"{row.error:.1e} ≤ {row.bound:.0e}  {verdict}  {row.case}{more}"


def _lines(rows: Sequence[Row]) -> Iterable[tuple[str, ...]]:
    """One line for each sampler, variant and prediction; tasks beside one another."""
    for (sampler, variant, prediction), group in groupby(
        rows, key=lambda row: (row.case.sampler.title, row.case.variant.name, row.case.prediction)
    ):
        by_task = {row.case.task: row for row in group}
        scheduler = _scheduler(next(iter(by_task.values())))
        yield sampler, variant, prediction, *(_cell(by_task.get(task)) for task in TASKS), scheduler


def _cell(row: Row | None) -> str:
    if row is None:
        return "–"
    number = f"{row.error:.1e}"
    return number if row.passed and row.bound == BOUND else f"**{number}**"


def _scheduler(row: Row) -> str:
    """Class and entries beside SDXL's."""
    config, case = row.case.config, row.case
    entries = [f"{key}={value}" for key, value in config.items() if SDXL.get(key) != value and key != "_class_name"]
    arguments = [f"{key}={value}" for key, value in case.variant.arguments.items()]
    return ", ".join([f"`{config['_class_name']}`", *entries, *arguments])


def _exceptions(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    header = ("row", "error", "bound", "diffusers to its float64", "sdxl-trt to diffusers' float64", "reason")
    return [f"\n## Rows above {REMARKABLE:g}\n", *_table(header, map(_exception, rows))]


def _exception(row: Row) -> tuple[str, ...]:
    distances = ("", "") if row.to_double is None else (f"{row.to_double.theirs:.1e}", f"{row.to_double.ours:.1e}")
    return str(row.case), f"{row.error:.1e}", f"{row.bound:.0e}", *distances, "FAILS" if row.failed else row.reason


def _absence(absence: Absence) -> tuple[str, ...]:
    predictions, tasks = ", ".join(absence.predictions), ", ".join(absence.tasks)
    return absence.sampler, absence.variant, predictions, tasks, absence.reason


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """A table of Markdown."""
    rows = [header, ["---"] * len(header), *lines]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
