"""Plans beside published speeds: `python -m benchmarks.plan_published`. Nothing is run here: both sides are figures.

The efficiencies that plans assume are taken from most of these figures (`sdxl_trt.planning.roofline`), so that they lie
in the range shows that it is drawn rightly; what it cannot show is how a card does that is not among them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.report import RESULTS, Aim, Report, publish
from sdxl_trt.bench.rows import Row
from sdxl_trt.gpus import find_gpu
from sdxl_trt.planning import Card, Option, Request, Unguided, make_plan, published
from sdxl_trt.planning.components import Components
from sdxl_trt.planning.roofline import Time, total

BASE, TURBO = "stabilityai/stable-diffusion-xl-base-1.0", "stabilityai/sdxl-turbo"

SOURCES = {
    "NVIDIA": "NVIDIA's cards of SDXL and of SDXL-Turbo for TensorRT: "
    "hf.co/stabilityai/stable-diffusion-xl-1.0-tensorrt, hf.co/stabilityai/sdxl-turbo-tensorrt",
    "MLPerf": "MLPerf Inference v5.1, SDXL offline, images per second and GPU, UNet in fp8",
    "diffusers": "Hugging Face's documentation of diffusers, with torch.compile",
    "OneDiff": "OneDiff's README",
}


@dataclass(frozen=True, kw_only=True)
class Float8:
    """The UNet's weights and products in fp8."""

    def __call__(self, components: Components, _request: Request) -> Components:
        """A byte for each parameter of the step; its activations as they were."""
        return tuple(
            dataclasses.replace(each, work=dataclasses.replace(each.work, weights=each.work.parameters))
            if each.graph == "step"
            else each
            for each in components
        )


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A published speed."""

    source: str
    """A key of `SOURCES`."""
    gpu: str
    seconds: float
    """Per picture."""
    steps: int
    model: str = BASE
    options: tuple[Option, ...] = ()

    def __str__(self) -> str:
        edge = 512 if self.model == TURBO else 1024
        return f"{self.source}, {self.gpu}, {self.steps} steps, {edge}²"

    def time(self) -> Time:
        """The same by our plan."""
        costs, gpu = published(self.model), find_gpu(self.gpu)
        request = Request(size=costs.model.native_size, steps=self.steps, batch=1)
        plan = make_plan(costs, Card.of(gpu), request, options=self.options)
        return total(gpu, plan.components, plan.chosen)


FIGURES = (
    Figure(source="NVIDIA", gpu="a10", seconds=8.160, steps=30),
    Figure(source="NVIDIA", gpu="a100", seconds=2.742, steps=30),
    Figure(source="NVIDIA", gpu="h100", seconds=1.471, steps=30),
    Figure(source="NVIDIA", gpu="a100", seconds=0.1386, steps=4, model=TURBO, options=(Unguided(),)),
    Figure(source="NVIDIA", gpu="h100", seconds=0.0838, steps=4, model=TURBO, options=(Unguided(),)),
    Figure(source="MLPerf", gpu="h200", seconds=1 / 2.40, steps=20, options=(Float8(),)),
    Figure(source="MLPerf", gpu="b200", seconds=1 / 3.97, steps=20, options=(Float8(),)),
    Figure(source="MLPerf", gpu="l40s", seconds=1 / 0.69, steps=20, options=(Float8(),)),
    Figure(source="diffusers", gpu="a100", seconds=2.54, steps=30),
    Figure(source="OneDiff", gpu="rtx3090", seconds=3.52, steps=20),
    Figure(source="OneDiff", gpu="rtx4090", seconds=1.56, steps=20),
    Figure(source="OneDiff", gpu="a800", seconds=1.62, steps=20),
)


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the JSON file.")
def main(output: Path) -> None:
    """Floor and expected range of each published speed, and how far the middle of the range is from it."""
    publish("plan_published", report, output)


def report() -> Report:
    """One block of rows for each figure; that no floor is above its figure is checked."""
    rows: list[Row] = []
    aims: list[Aim] = []
    for figure in FIGURES:
        time = figure.time()
        error = 100 * ((time.low + time.high) / 2 / figure.seconds - 1)
        floor = _row(figure, "floor", "s", time.floor)
        rows += [
            Row(who="published", what=str(figure), unit="s", samples=(figure.seconds,)),
            floor,
            _row(figure, "low", "s", time.low),
            _row(figure, "high", "s", time.high),
            _row(figure, "error", "%", error),
        ]
        aims.append(Aim(row=floor, bound=figure.seconds, at_most=True))
    return Report(
        title="Plans beside published speeds",
        settings={"pictures at once": 1},
        distributions=("sdxl-trt",),
        rows=rows,
        aims=aims,
        notes=(
            "The error is that of the middle of the expected range, relative to the published figure.",
            "An fp8 UNet keeps its attention in fp16, which `Float8` does not tell: plans of it are too quick.",
        ),
        details={"sources": SOURCES},
        timed=False,
    )


def _row(figure: Figure, what: str, unit: str, value: float) -> Row:
    return Row(who="plan", what=f"{figure}: {what}", unit=unit, samples=(value,))


if __name__ == "__main__":
    main()
