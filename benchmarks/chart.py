"""Small multiples as SVG: one little line chart for each thing measured, all on the same axes, light and dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from sdxl_trt.svg import picture

COLUMNS: Final = 6
WIDTH, HEIGHT = 118, 74
"""Of one chart's axes, in pixels."""
GAP, ROW_GAP, LEFT, TOP = 12, 54, 40, 68


@dataclass(frozen=True, kw_only=True)
class Line:
    """One little chart."""

    name: str
    values: tuple[float, ...]
    """One for each tick, 0 to 100."""


def chart(title: str, unit: str, ticks: Sequence[int], lines: Sequence[Line]) -> str:
    """The SVG.

    Args:
        title: above all.
        unit: of the ticks.
        ticks: numbers at which the values were measured, ascending; spaced as their values are.
        lines: in reading order.
    """
    rows = -(-len(lines) // COLUMNS)
    width = LEFT + min(COLUMNS, len(lines)) * (WIDTH + GAP) + GAP
    width = max(width, LEFT + 8 * len(title))
    height = TOP + rows * (HEIGHT + ROW_GAP) - 6
    content = [_panel(ticks, line, *divmod(number, COLUMNS)) for number, line in enumerate(lines)]
    content.append(f'<text x="{LEFT}" y="{height - 6}">{escape(unit)}</text>')
    return picture(title, width, height, LEFT, content)


def _panel(ticks: Sequence[int], line: Line, row: int, column: int) -> str:
    """One chart at its place; the leftmost has the numbers of the vertical axis."""
    x, y = LEFT + column * (WIDTH + GAP), TOP + row * (HEIGHT + ROW_GAP)
    inside = [f'<text class="name" y="-20">{escape(line.name)}</text>']
    for value in (0, 50, 100):
        inside.append(f'<path class="grid" d="M0 {_down(value)}H{WIDTH}"/>')
        if column == 0:
            inside.append(f'<text x="-6" y="{_down(value) + 4}" text-anchor="end">{value}</text>')
    inside += [f'<text x="{_across(t, ticks)}" y="{HEIGHT + 15}" text-anchor="middle">{t}</text>' for t in ticks]
    inside += _marks(ticks, line)
    return f'<g transform="translate({x} {y})">{"".join(inside)}</g>'


def _marks(ticks: Sequence[int], line: Line) -> Iterator[str]:
    """The line, its points, and the numbers of the first and the last."""
    points = [(_across(tick, ticks), _down(value)) for tick, value in zip(ticks, line.values, strict=True)]
    yield f'<polyline class="line" points="{" ".join(f"{x},{y}" for x, y in points)}"/>'
    for (x, y), value in zip(points, line.values, strict=True):
        yield f'<circle class="dot" cx="{x}" cy="{y}" r="3.5"><title>{value:.0f}</title></circle>'
    (x, y), value = points[0], line.values[0]  # the number stands where the line is not: it rises
    under = f'x="{x}" y="{y + 15}" text-anchor="middle"'
    place = under if value >= 20 else f'x="{x - 5}" y="{y - 5}" text-anchor="end"'
    yield f'<text class="value" {place}>{value:.0f}</text>'
    (x, y), value = points[-1], line.values[-1]
    yield f'<text class="value" x="{x}" y="{y - 7}" text-anchor="middle">{value:.0f}</text>'


def _across(tick: int, ticks: Sequence[int]) -> float:
    return round(10 + (tick - ticks[0]) / (ticks[-1] - ticks[0]) * (WIDTH - 20), 1)


def _down(value: float) -> float:
    return round(HEIGHT * (1 - value / 100), 1)
