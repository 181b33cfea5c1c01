"""What a benchmark found: printed as a table, written as JSON."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from sdxl_trt.bench.machine import Disturbance, machine, versions
from sdxl_trt.bench.rows import Row, number, text_table
from sdxl_trt.files import write_json

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True, kw_only=True)
class Aim:
    """A bound that a row's median should keep."""

    row: Row
    bound: float
    at_most: bool
    """The bound is an upper one; else a lower one."""

    @property
    def met(self) -> bool:
        """The median keeps the bound."""
        return self.row.median <= self.bound if self.at_most else self.row.median >= self.bound

    def __str__(self) -> str:
        sign = "≤" if self.at_most else "≥"
        return (
            f"aim {'met' if self.met else 'MISSED'}: {self.row.who}, {self.row.what} {sign} {self.bound:g} "
            f"{self.row.unit}, measured {number(self.row.median)}"
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that one benchmark has to say."""

    title: str
    settings: dict[str, Any]
    """What was fixed: sizes, steps, threads."""
    distributions: tuple[str, ...]
    """Whose versions matter."""
    rows: Sequence[Row]
    aims: Sequence[Aim] = ()
    notes: tuple[str, ...] = ()
    """What to know when quoting a figure, and what was not measured."""
    details: dict[str, Any] = field(default_factory=dict)
    """For the JSON file alone."""
    timed: bool = True
    """Holds times, which a busy machine spoils."""

    def as_json(self) -> dict[str, Any]:
        """Everything, every sample included, with the machine, the versions and the time."""
        return {
            "title": self.title,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions(self.distributions),
            "settings": self.settings,
            "rows": [asdict(row) | {"median": row.median} for row in self.rows],
            "aims": [{"aim": str(aim), "met": aim.met} for aim in self.aims],
            "notes": list(self.notes),
            "details": self.details,
        }

    def __str__(self) -> str:
        settings = [", ".join(f"{name} {value}" for name, value in self.settings.items())] if self.settings else []
        header = ("who", "what", "median", "min", "max", "unit", "runs")
        lines = text_table([header, *map(_cells, self.rows)], "llrrrlr")
        return "\n".join([self.title, *settings, "", *lines, "", *map(str, self.aims), *self.notes])


def command(name: str, measure: Callable[[int], Report], *, runs: int) -> click.Command:
    """The command line of one benchmark: `--runs`, `--output`."""

    @click.command(name, help=measure.__doc__)
    @click.option("--runs", type=click.IntRange(1), default=runs, show_default=True, help="Of everything timed.")
    @click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the JSON file.")
    def main(runs: int, output: Path) -> None:
        publish(name, lambda: measure(runs), output)

    return main


def publish(name: str, measure: Callable[[], Report], output: Path) -> None:
    """Measure, print the table, and write `name`.json into the output folder."""
    disturbance = Disturbance()
    report = measure()
    if report.timed:
        report = replace(report, notes=(*report.notes, disturbance.verdict()))
    click.echo(report)
    write_json(output / f"{name}.json", report.as_json())


def ratio(dividend: Row, divisor: Row, what: str) -> Row:
    """How many times the one is the other, pair by pair as they were interleaved."""
    samples = tuple(a / b for a, b in zip(dividend.samples, divisor.samples, strict=True))
    return Row(who=f"{dividend.who} ÷ {divisor.who}", what=what, unit="×", samples=samples)


def _cells(row: Row) -> tuple[str, ...]:
    ends = [number(end(row.samples)) if len(row.samples) > 1 else "" for end in (min, max)]
    return row.who, row.what, number(row.median), *ends, row.unit, str(len(row.samples))
