"""How many steps each sampler needs: the demo model's pictures of unseen prompts, scored, at 5 to 30 steps.

Every sampler draws the same prompts from the same seeds at 128×128, on the project's own runtime. A picture is right
if background, colours, shapes and size or position are all as the prompt says (`benchmarks.scorer`). A step is what
the request calls one: samplers of second order evaluate the network twice in it. Samplers for distilled models, and
for models trained on σ, are left out: the demo model is neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from benchmarks.chart import Line, chart
from benchmarks.peer import EDGE, GUIDANCE
from benchmarks.quality import build, ours, unseen
from benchmarks.report import RESULTS, Report
from scripts.demo_model.captions import Scene
from sdxl_trt.bench.rows import Row
from sdxl_trt.files import write_json
from sdxl_trt.paths import DEMO_CHECKPOINT
from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.samplers import SAMPLERS

NAME = "quality_samplers"
PLOT = Path(__file__).parents[1] / "docs" / "samplers.svg"
STEPS = (5, 10, 20, 30)
OTHER_MODELS = ("lcm", "tcd", "edm_euler", "edm_dpmpp_2m")
CHOICES = tuple(name for name in SAMPLERS if name not in OTHER_MODELS)


def measure(pipeline: Pipeline, samplers: Sequence[str], asked: Sequence[Scene]) -> Iterator[Row]:
    """One row for each sampler and number of steps."""
    for sampler in samplers:
        for steps in STEPS:
            settings = {"sampler": sampler, "steps": steps, "guidance": GUIDANCE, "size": (EDGE, EDGE)}
            row = ours(pipeline, asked, **settings).row(SAMPLERS[sampler].title, f"steps: {steps}")
            click.echo(f"{row.who}, {row.what}: {row.median:.0f} %", err=True)
            yield row


def lines(rows: Sequence[Row]) -> list[Line]:
    """One line for each sampler."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row.who, []).append(row.median)
    return [Line(name=name, values=tuple(values)) for name, values in found.items()]


@click.command(NAME)
@click.option("--prompts", type=click.IntRange(6, 300), default=60, show_default=True)
@click.option("--sampler", "samplers", multiple=True, type=click.Choice(CHOICES), help="[default: all]")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the JSON file.")
@click.option("--plot", type=click.Path(path_type=Path), default=PLOT, help="The SVG file.")
def main(prompts: int, samplers: tuple[str, ...], output: Path, plot: Path) -> None:
    """Score every sampler on unseen prompts at 5, 10, 20 and 30 steps, and plot it."""
    rows = list(measure(build(DEMO_CHECKPOINT), samplers or CHOICES, unseen(prompts)))
    report = Report(
        title="Quality of the demo model by sampler, on the CPU, float32",
        settings={"unseen prompts": prompts, "guidance": GUIDANCE, "size": f"{EDGE}×{EDGE}"},
        distributions=("sdxl-trt", "onnxruntime", "numpy", "pillow"),
        rows=rows,
        timed=False,
    )
    click.echo(report)
    write_json(output / f"{NAME}.json", report.as_json())
    title = f"Pictures that are right, in percent of {prompts} unseen prompts"
    plot.write_text(chart(title, "steps", STEPS, lines(rows)), encoding="utf-8")


if __name__ == "__main__":
    main()
