"""A roofline plot: what engines reach, under what their GPU could (Williams et al. 2009, doi:10.1145/1498765.1498785).

Both axes are logarithmic. An engine left of a roof's corner is bound by memory, right of it by arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from sdxl_trt.bench.engines import EngineRuns
from sdxl_trt.bench.rows import number
from sdxl_trt.gpus import Gpu
from sdxl_trt.svg import picture

WIDTH, HEIGHT = 620, 380
"""Of the axes, in pixels."""
LEFT, TOP, MARGIN = 64, 48, 24
LINE_HEIGHT = 12
TICKS: Final = (1, 2, 5)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Powers of ten over a length."""

    low: int
    high: int
    """Exponents of the ends."""
    length: int

    @classmethod
    def around(cls, values: Sequence[float], length: int) -> Axis:
        """One that holds all the values."""
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        return cls(low=low, high=max(high, low + 1), length=length)

    def at(self, value: float) -> float:
        """The place of a value, in pixels from the low end."""
        return round((math.log10(value) - self.low) / (self.high - self.low) * self.length, 1)

    def ticks(self) -> list[float]:
        """1, 2, 5, 10, … as far as it goes."""
        decades = range(self.low, self.high)
        return [*(tick * 10.0**power for power in decades for tick in TICKS), 10.0**self.high]


def plot(gpu: Gpu, engines: Sequence[EngineRuns]) -> str:
    """The SVG.

    Args:
        gpu: of the catalogue.
        engines: with operations and bytes.
    """
    points = [(runs, runs.intensity or 0.0, runs.tflops or 0.0) for runs in engines]
    roofs = {"fp16, fp32 accumulation": gpu.fp16_fp32acc_tflops}
    if gpu.fp16_fp16acc_tflops != gpu.fp16_fp32acc_tflops:
        roofs["fp16, fp16 accumulation"] = gpu.fp16_fp16acc_tflops
    corners = [1000 * roof / gpu.bandwidth_gb_s for roof in roofs.values()]
    across = Axis.around([*(x for _, x, _ in points), *corners], WIDTH)
    up = Axis.around([*(y for _, _, y in points), *roofs.values()], HEIGHT)
    inside = [*_grid(across, up), *_roofs(gpu, roofs, across, up), *_points(points, across, up)]
    content = [f'<g transform="translate({LEFT} {TOP})">{"".join(inside)}</g>']
    title = f"Engines on {gpu.name}: TFLOP/s by operations per byte"
    return picture(title, LEFT + WIDTH + MARGIN, TOP + HEIGHT + 2 * MARGIN, LEFT, content)


def _grid(across: Axis, up: Axis) -> Iterator[str]:
    for tick in across.ticks():
        x = across.at(tick)
        yield f'<path class="grid" d="M{x} 0V{HEIGHT}"/>'
        yield f'<text x="{x}" y="{HEIGHT + 15}" text-anchor="middle">{tick:g}</text>'
    for tick in up.ticks():
        y = HEIGHT - up.at(tick)
        yield f'<path class="grid" d="M0 {y}H{WIDTH}"/>'
        yield f'<text x="-6" y="{y + 4}" text-anchor="end">{tick:g}</text>'
    yield f'<text x="{WIDTH}" y="{HEIGHT + 30}" text-anchor="end">operations per byte</text>'


def _roofs(gpu: Gpu, roofs: dict[str, float], across: Axis, up: Axis) -> Iterator[str]:
    """Memory's slope as far as the highest roof, from where it enters the plot; and each roof from the slope on."""
    bandwidth = gpu.bandwidth_gb_s / 1000  # TFLOP/s for each operation per byte
    least = max(10.0**across.low, 10.0**up.low / bandwidth)
    top = max(roofs.values())
    start, corner = _place(least, least * bandwidth, across, up), _place(top / bandwidth, top, across, up)
    yield f'<path class="line" d="M{start}L{corner}"/>'
    for (name, roof), kind in zip(roofs.items(), ("line", "faint"), strict=False):
        y = HEIGHT - up.at(roof)
        yield f'<path class="{kind}" d="M{_place(roof / bandwidth, roof, across, up)}H{WIDTH}"/>'
        yield f'<text x="{WIDTH - 4}" y="{y - 5}" text-anchor="end">{escape(name)}: {number(roof)} TFLOP/s</text>'
    x, y = across.at(least) + 8, HEIGHT - up.at(least * bandwidth) - 4
    yield f'<text x="{x}" y="{y}">{number(gpu.bandwidth_gb_s)} GB/s</text>'


def _points(points: Sequence[tuple[EngineRuns, float, float]], across: Axis, up: Axis) -> Iterator[str]:
    """Each engine with its name, which stands where no other does."""
    taken: list[float] = []
    for runs, intensity, tflops in sorted(points, key=lambda point: -point[2]):
        x, y = across.at(intensity), HEIGHT - up.at(tflops)
        beside = y + 4
        while any(abs(beside - other) < LINE_HEIGHT for other in taken):
            beside += 1
        taken.append(beside)
        end, place = ("end", x - 8) if x > WIDTH / 2 else ("start", x + 8)
        told = f"{label(runs)}: {number(tflops)} TFLOP/s at {number(intensity)} operations per byte"
        yield f'<circle class="dot" cx="{x}" cy="{y}" r="4"><title>{escape(told)}</title></circle>'
        yield f'<text class="value" x="{place}" y="{beside}" text-anchor="{end}">{escape(label(runs))}</text>'


def label(runs: EngineRuns) -> str:
    """An engine, and how many pictures at once where that matters."""
    return f"{runs.name} ×{runs.batch}" if "slots" in runs.axes and "rows" in runs.axes else runs.name


def _place(intensity: float, tflops: float, across: Axis, up: Axis) -> str:
    return f"{across.at(intensity)} {HEIGHT - up.at(tflops)}"
