"""One report as text, Markdown, JSON and files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from sdxl_trt.bench.engines import EngineRuns
from sdxl_trt.bench.report import Report
from sdxl_trt.bench.roofline import plot
from sdxl_trt.bench.rows import Figure
from sdxl_trt.errors import OutputError
from sdxl_trt.gpus import find_gpu

ENGINES = [EngineRuns(name="step", batch=1, axes={"rows": 2}, seconds=(0.03, 0.04, 0.05), operations=4e12, bytes=2e10)]
FIGURES = [
    Figure(who="sdxl-trt", what="whole picture", batch=1, unit="ms", samples=(1000.0, 1500.0, 1600.0)),
    Figure(who="sdxl-trt", what="whole picture", batch=2, unit="ms", samples=(2000.0,)),
    Figure(who="sdxl-trt", what="energy per picture", batch=1, unit="J", reason="NVML: it is away"),
    Figure(who="sdxl-trt", what="energy per picture", batch=2, unit="J", reason="NVML: it is away"),
    Figure(who="diffusers eager", what="whole picture", batch=1, unit="ms", samples=(3000.0, 2990.0, 3010.0)),
    Figure(who="diffusers eager", what="whole picture", batch=4, unit="ms", samples=(9000.0,)),
    Figure(who="diffusers torch.compile", what="whole picture", batch=1, unit="ms", reason="it failed: no compiler"),
]


def report(**changes: Any) -> Report:
    whole = Report(
        settings={"model": "toy", "size": "64x64"},
        gpu={"name": "NVIDIA H200", "sm": 90},
        versions={"numpy": "2.0"},
        figures=FIGURES,
        engines=ENGINES,
        roofline=plot(find_gpu("h200"), ENGINES),
        no_roofline="",
        notes=("a note",),
    )
    return dataclasses.replace(whole, **changes)


@pytest.mark.parametrize("form", [str, Report.markdown], ids=["text", "markdown"])
def test_the_same_is_told_in_both_forms(form: Any) -> None:
    shown = form(report())
    for part in (
        "toy on NVIDIA H200",
        "size 64x64",
        "1,500",
        "sdxl-trt, batch 1: 2× as fast as diffusers eager",
        "a note",
        "not measured: diffusers torch.compile, whole picture: it failed: no compiler",
        "rows 2",
    ):
        assert part in shown
    assert shown.count("NVML: it is away") == 1  # once for all batches
    assert "batch 4" not in shown  # nothing of ours to compare with
    assert "100" in shown  # TFLOP/s
    assert "200" in shown  # operations per byte


def test_figures_of_a_busy_machine_are_not_compared() -> None:
    shown = str(report(not_comparable="others used the processor"))
    assert "not compared: others used the processor" in shown
    assert "as fast as" not in shown


def test_markdown_shows_the_plot_where_there_is_one() -> None:
    assert "](roofline.svg)" in report().markdown()
    without = report(roofline="", no_roofline="the catalogue does not know it")
    assert "roofline.svg" not in without.markdown()
    assert "no roofline plot: the catalogue does not know it" in without.markdown()


def test_json_has_every_sample_and_every_reason() -> None:
    told = json.loads(json.dumps(report().as_json()))
    assert told["schema"] == 1
    assert {"created", "machine", "gpu", "versions", "settings", "figures", "engines", "roofline", "notes"} < set(told)
    picture, energy = told["figures"][0], told["figures"][2]
    assert picture["samples"] == [1000, 1500, 1600]
    assert picture["p50"] == 1500
    assert (energy["mean"], energy["reason"]) == (None, "NVML: it is away")
    assert told["engines"][0]["tflops"] == pytest.approx(100)
    assert told["engines"][0]["operations_per_byte"] == pytest.approx(200)
    assert told["roofline"] == {"file": "roofline.svg", "reason": None}


def test_files(tmp_path: Path) -> None:
    for _ in range(2):
        paths = report().write(tmp_path / "new")
        assert [path.name for path in paths] == ["bench.json", "bench.md", "roofline.svg"]
    assert json.loads(paths[0].read_text())["settings"]["model"] == "toy"
    assert paths[1].read_text() == report().markdown()
    ElementTree.parse(paths[2])
    fewer = report(roofline="", no_roofline="no").write(tmp_path / "other")
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == sorted(path.name for path in fewer)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        report().write(tmp_path / "file")
