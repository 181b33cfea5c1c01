"""The plot has every engine at its place, and the roofs where the catalogue has them."""

from __future__ import annotations

import itertools
import math
from xml.etree import ElementTree

import pytest

from sdxl_trt.bench.engines import EngineRuns
from sdxl_trt.bench.roofline import HEIGHT, LEFT, TOP, WIDTH, Axis, plot
from sdxl_trt.gpus import find_gpu

SVG = "{http://www.w3.org/2000/svg}"


def runs(name: str, operations: float, size: float, seconds: float, batch: int = 1) -> EngineRuns:
    axes = {"rows": 2, "slots": batch} if name == "step" else {"rows": 1}
    return EngineRuns(name=name, batch=batch, axes=axes, seconds=(seconds,) * 3, operations=operations, bytes=size)


ENGINES = [
    runs("step", 13e12, 6e9, 0.03),
    runs("step", 52e12, 8e9, 0.11, batch=4),
    runs("text_encoder", 13e9, 0.25e9, 0.001),
    runs("text_encoder_2", 98e9, 1.4e9, 0.001),
    runs("vae_decoder", 10e12, 20e9, 0.2),
]


@pytest.mark.parametrize("name", ["h200", "rtx3060"])
def test_every_engine_is_at_its_place(name: str) -> None:
    gpu = find_gpu(name)
    root = ElementTree.fromstring(plot(gpu, ENGINES))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert width > LEFT + WIDTH
    assert height > TOP + HEIGHT
    dots = {dot[0].text.partition(":")[0]: dot.attrib for dot in root.iter(f"{SVG}circle")}
    assert set(dots) == {"step ×1", "step ×4", "text_encoder", "text_encoder_2", "vae_decoder"}
    for dot in dots.values():
        assert 0 <= float(dot["cx"]) <= WIDTH
        assert 0 <= float(dot["cy"]) <= HEIGHT
    one, four = dots["step ×1"], dots["step ×4"]
    assert float(four["cx"]) > float(one["cx"])  # more operations per byte
    assert float(four["cy"]) < float(one["cy"])  # faster is higher
    text = " ".join(element.text or "" for element in root.iter(f"{SVG}text"))
    assert f"{gpu.bandwidth_gb_s:,.0f} GB/s" in text
    assert ("fp16 accumulation" in text) == (gpu.fp16_fp16acc_tflops != gpu.fp16_fp32acc_tflops)


def test_labels_do_not_cover_each_other() -> None:
    """Five engines of the very same speed."""
    same = [runs("step", 1e12, 1e10, 0.01, batch=batch) for batch in range(1, 6)]
    root = ElementTree.fromstring(plot(find_gpu("a100"), same))
    heights = sorted(float(text.attrib["y"]) for text in root.iter(f"{SVG}text") if text.get("class") == "value")
    assert len(heights) == 5
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 10


def test_an_axis_is_logarithmic() -> None:
    axis = Axis.around([3, 400], 300)
    assert (axis.low, axis.high) == (0, 3)
    assert [axis.at(value) for value in (1, 10, 100, 1000)] == [0, 100, 200, 300]
    assert axis.at(math.sqrt(10)) == 50
    assert axis.ticks() == pytest.approx([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000])
    assert Axis.around([10, 10], 300).high == 2


def test_rates() -> None:
    step = ENGINES[0]
    assert step.tflops == pytest.approx(13 / 0.03)
    assert step.intensity == pytest.approx(13e12 / 6e9)
    unknown = EngineRuns(name="step", batch=1, axes={}, seconds=(0.1,), operations=None, bytes=None)
    assert unknown.tflops is None
    assert unknown.intensity is None
    assert unknown.as_json()["ms"] == 100
