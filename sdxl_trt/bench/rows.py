"""Quantities that were measured several times, and tables of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import numpy as np

PERCENTILES: Final = (50, 90, 95, 99)

Cells = Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One quantity, measured once or several times."""

    who: str
    """The program or library measured."""
    what: str
    unit: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure to quote."""
        return median(self.samples)


@dataclass(frozen=True, kw_only=True)
class Figure(Row):
    """A quantity at one batch size; or the reason why there is none."""

    batch: int
    """Pictures asked for at once."""
    samples: tuple[float, ...] = ()
    reason: str = ""
    """Of there being no samples."""

    def statistics(self) -> dict[str, float | None]:
        """min, mean and percentiles by name, between samples interpolated linearly; None without samples."""
        names = ("min", "mean", *(f"p{percent}" for percent in PERCENTILES))
        if not self.samples:
            return dict.fromkeys(names)
        values = np.percentile(self.samples, PERCENTILES)
        return dict(zip(names, map(float, (min(self.samples), np.mean(self.samples), *values)), strict=True))

    def as_json(self) -> dict[str, Any]:
        """What it is, its statistics and its samples."""
        told: dict[str, Any] = {"who": self.who, "what": self.what, "batch": self.batch, "unit": self.unit}
        return told | self.statistics() | {"samples": list(self.samples), "reason": self.reason or None}


def number(value: float) -> str:
    """Three significant digits, and all digits of larger whole numbers."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def text_table(rows: Sequence[Cells], align: str) -> list[str]:
    """Lines of a table, its header being the first row.

    Args:
        rows: cells.
        align: a letter for each column: l or r.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(align))]
    pads = [str.ljust if letter == "l" else str.rjust for letter in align]
    return [
        "  ".join(pad(cell, width) for pad, cell, width in zip(pads, row, widths, strict=True)).rstrip() for row in rows
    ]


def markdown_table(rows: Sequence[Cells], align: str) -> list[str]:
    """The same in Markdown (GitHub's)."""
    header, *body = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
    rule = "|".join("---" if letter == "l" else "--:" for letter in align)
    return [header, f"|{rule}|", *body]
