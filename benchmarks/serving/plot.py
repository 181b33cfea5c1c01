"""Latency against load as SVG: a panel for each kind of requests, a line for each way, light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from sdxl_trt.svg import picture

WIDTH, HEIGHT = 300, 190
"""Of one panel's axes, in pixels."""
LEFT, TOP, GAP, BOTTOM = 56, 76, 56, 46
AXIS: Final = "load, in parts of what one at a time can do"
COLOURS: Final = ("--muted", "--warning", "--line")
"""Of the ways, in their order."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One kind of requests."""

    name: str
    lines: Mapping[str, Sequence[float]]
    """Seconds at each load, by way."""


def latency_plot(title: str, loads: Sequence[float], panels: Sequence[Panel]) -> str:
    """The SVG. Seconds are on a logarithmic axis, the same in all panels.

    Args:
        title: above all.
        loads: in parts of the capacity, ascending.
        panels: from the left.
    """
    values = [value for panel in panels for line in panel.lines.values() for value in line]
    decades = range(math.floor(math.log10(min(values))), math.floor(math.log10(max(values))) + 2)
    content = list(_legend(list(panels[0].lines)))
    for number, panel in enumerate(panels):
        x = LEFT + number * (WIDTH + GAP)
        content.append(f'<g transform="translate({x} {TOP})">{"".join(_panel(panel, loads, decades))}</g>')
    width = LEFT + len(panels) * (WIDTH + GAP) - GAP + 24
    return picture(title, width, TOP + HEIGHT + BOTTOM, LEFT, content)


def _legend(names: Sequence[str]) -> Iterator[str]:
    x = LEFT
    for name, colour in zip(names, COLOURS, strict=True):
        yield f'<path d="M{x} 43h18" style="stroke: var({colour}); stroke-width: 2"/>'
        yield f'<text x="{x + 24}" y="47">{escape(name)}</text>'
        x += 44 + 6 * len(name)


def _panel(panel: Panel, loads: Sequence[float], decades: range) -> Iterator[str]:
    yield f'<text class="name" y="-8">{escape(panel.name)}</text>'
    for decade in decades:
        y = _down(10.0**decade, decades)
        yield f'<path class="grid" d="M0 {y}H{WIDTH}"/>'
        yield f'<text x="-6" y="{y + 4}" text-anchor="end">{10.0**decade:g} s</text>'
    for load in loads:
        x = _across(load, loads)
        yield f'<text x="{x}" y="{HEIGHT + 16}" text-anchor="middle">{load:g}×</text>'
    yield f'<text x="{WIDTH / 2}" y="{HEIGHT + 34}" text-anchor="middle">{AXIS}</text>'
    for (name, line), colour in zip(panel.lines.items(), COLOURS, strict=True):
        points = [(_across(load, loads), _down(value, decades), value) for load, value in zip(loads, line, strict=True)]
        yield from _line(name, points, colour)


def _line(name: str, points: Sequence[tuple[float, float, float]], colour: str) -> Iterator[str]:
    path = " ".join(f"{x},{y}" for x, y, _ in points)
    yield f'<polyline class="line" points="{path}" style="stroke: var({colour})"/>'
    for x, y, seconds in points:
        told = f"<title>{escape(name)}: {seconds:.3g} s</title>"
        yield f'<circle class="dot" cx="{x}" cy="{y}" r="3.5" style="fill: var({colour})">{told}</circle>'


def _across(load: float, loads: Sequence[float]) -> float:
    return round(10 + (load - loads[0]) / (loads[-1] - loads[0] or 1) * (WIDTH - 20), 1)


def _down(seconds: float, decades: range) -> float:
    share = (math.log10(seconds) - decades[0]) / (decades[-1] - decades[0])
    return round(HEIGHT * (1 - share), 1)
