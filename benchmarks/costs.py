"""SDXL's graphs counted at full size: `python -m benchmarks.costs`. No weight is needed, nor any disk for them.

A checkpoint is made whose safetensors files have true headers and no content (sparse files), and exported as any other.
Besides the results, this writes what the package knows of published models (sdxl_trt/planning/published.json).
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import click

from benchmarks.fullsize_model import make, write_sparse
from benchmarks.report import RESULTS, Aim, Report, publish
from sdxl_trt import planning
from sdxl_trt.bench.rows import Row
from sdxl_trt.export.run import export_model
from sdxl_trt.files import write_json
from sdxl_trt.planning import ModelCosts, of_export

PUBLISHED = Path(planning.__file__).with_name("published.json")
ARITHMETIC = {
    ("base", "step", 1024): 6.761,
    ("base", "step", 512): 1.589,
    ("refiner", "step", 1024): 7.286,
    ("refiner", "step", 512): 1.619,
    ("base", "vae_decoder", 1024): 10.470,
    ("base", "vae_decoder", 512): 2.515,
    ("base", "text_encoder", 1024): 0.013,
    ("base", "text_encoder_2", 1024): 0.098,
}
"""10^12 operations of one row or picture, by kind, graph and edge in pixels: computed from layer shapes by hand."""
WITHIN = 0.01
ROUNDED = 0.0005
"""Half a unit of the last digit that `ARITHMETIC` has."""


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the JSON file.")
def main(output: Path) -> None:
    """Export base and refiner at full size, count, and write what the package knows of them (two minutes, 1 GB)."""
    with tempfile.TemporaryDirectory() as folder:
        costs = {kind: full_size(Path(folder), kind) for kind in ("base", "refiner")}
    publish("costs", lambda: report(costs), output)
    write_json(PUBLISHED, {kind: dataclasses.asdict(each) for kind, each in costs.items()})


def full_size(folder: Path, kind: str) -> ModelCosts:
    """The costs of 'base' or 'refiner' from its published configs; `folder` is for what is in between."""
    make(folder / kind, kind, write_sparse)
    export_model(folder / kind, folder / f"{kind}-export", precisions=["float16"])
    costs = of_export(folder / f"{kind}-export")
    name = f"stable-diffusion-xl-{kind}-1.0"
    return dataclasses.replace(costs, model=dataclasses.replace(costs.model, name=name, content="0" * 64))


def report(costs: dict[str, ModelCosts]) -> Report:
    """Operations beside the arithmetic; parameters, bytes and live memory."""
    rows, aims = [], []
    for (kind, graph, edge), expected in ARITHMETIC.items():
        axes = {"rows": 1, "slots": 1, "height": edge // 8, "width": edge // 8, "tokens": 77}
        work = costs[kind].works[graph]
        counted = work.operations(axes) / 1e12
        what = f"{kind} {graph}, {edge}²"
        for figure, unit, value in (
            ("operations", "TFLOP", counted),
            ("bytes moved", "GB", work.bytes(axes) / 1e9),
            ("activations", "GB", work.activations(axes) / 1e9),
        ):
            rows.append(Row(who="sdxl-trt", what=f"{what}: {figure}", unit=unit, samples=(value,)))
        off = Row(who="sdxl-trt", what=f"{what}: off by", unit="TFLOP", samples=(abs(counted - expected),))
        aims.append(Aim(row=off, bound=max(WITHIN * expected, ROUNDED), at_most=True))
    return Report(
        title="Work of SDXL's graphs, counted",
        settings={"rows": 1, "slots": 1, "tokens": 77, "precision": "float16, the VAE float32"},
        distributions=("torch", "diffusers", "transformers", "onnx"),
        rows=[*rows, *_parameters(costs)],
        aims=aims,
        timed=False,
    )


def _parameters(costs: dict[str, ModelCosts]) -> list[Row]:
    """By graph; the token embedding tables are no part of one."""
    return [
        Row(who="sdxl-trt", what=f"{kind} {graph}: parameters", unit="", samples=(work.parameters,))
        for kind, each in costs.items()
        for graph, work in each.works.items()
    ]


if __name__ == "__main__":
    main()
