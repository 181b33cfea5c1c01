"""What a bench found: as text, as Markdown, as JSON, and as a plot where there is one."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sdxl_trt.bench.engines import EngineRuns
from sdxl_trt.bench.machine import machine
from sdxl_trt.bench.rows import Cells, Figure, markdown_table, number, text_table
from sdxl_trt.files import atomic_write, write_json
from sdxl_trt.version import __version__

SCHEMA: Final = 1
"""Of the JSON file."""
FILES: Final = ("bench.json", "bench.md", "roofline.svg")

_ALIGN = "llrrrrrrrrl"
_ENGINE_ALIGN = "lrlrrr"

Table = Callable[[Sequence[Cells], str], list[str]]


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of a bench."""

    settings: dict[str, Any]
    """What was asked for, nothing left open, and of which bundle."""
    gpu: dict[str, Any] | None
    """That engines ran on."""
    versions: dict[str, str]
    figures: Sequence[Figure]
    engines: Sequence[EngineRuns]
    roofline: str
    """SVG; empty for the reason that stands next."""
    no_roofline: str
    notes: tuple[str, ...]
    not_comparable: str = ""
    """Why figures of one are not to be set against another's; empty text where they are."""

    def as_json(self) -> dict[str, Any]:
        """Everything, every sample included, with the machine and the time."""
        return {
            "schema": SCHEMA,
            "sdxl-trt": __version__,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "gpu": self.gpu,
            "versions": self.versions,
            "settings": self.settings,
            "figures": [figure.as_json() for figure in self.figures],
            "engines": [runs.as_json() for runs in self.engines],
            "roofline": {"file": FILES[2] if self.roofline else None, "reason": self.no_roofline or None},
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        title, lines = self._title(), self._lines(text_table)
        return "\n".join([title, "=" * len(title), *lines])

    def markdown(self) -> str:
        """The same as a page, with the plot."""
        plot = [f"![{self._title()}]({FILES[2]})", ""] if self.roofline else []
        return "\n".join([f"# {self._title()}", "", *self._lines(markdown_table), "", *plot])

    def write(self, folder: Path) -> list[Path]:
        """Write the files, in place of those that are there.

        Raises:
            OutputError: they cannot be written.
        """
        names = FILES if self.roofline else FILES[:2]
        paths = [folder / name for name in names]
        for path, text in zip(paths[1:], (self.markdown(), self.roofline), strict=False):
            with atomic_write(path) as file:
                file.write(text.encode())
        write_json(paths[0], self.as_json())
        return paths

    def _title(self) -> str:
        return f"{self.settings['model']} on {self.gpu['name'] if self.gpu else machine()['cpu']}"

    def _lines(self, table: Table) -> Iterator[str]:
        yield "; ".join(f"{name} {value}" for name, value in self.settings.items())
        yield ""
        yield from table([_HEADER, *(_cells(figure) for figure in self.figures if figure.samples)], _ALIGN)
        yield ""
        yield from table([_ENGINE_HEADER, *map(_engine_cells, self.engines)], _ENGINE_ALIGN)
        yield ""
        for line in (*self.notes, *self._comparisons(), *self._missing()):
            yield f"* {line}"

    def _comparisons(self) -> Iterator[str]:
        """The first one's pictures against each other's, by batch."""
        if self.not_comparable:
            yield f"not compared: {self.not_comparable}"
            return
        pictures = [figure for figure in self.figures if figure.what == "whole picture" and figure.samples]
        ours = {figure.batch: figure for figure in pictures if figure.who == self.figures[0].who}
        for peer in pictures:
            if peer.who != self.figures[0].who and peer.batch in ours:
                own = ours[peer.batch]
                yield f"{own.who}, batch {own.batch}: {number(peer.median / own.median)}× as fast as {peer.who}"

    def _missing(self) -> Iterator[str]:
        """What was not measured, and why."""
        reasons = {(figure.who, figure.what): figure.reason for figure in self.figures if figure.reason}
        for (who, what), reason in reasons.items():
            yield f"not measured: {who}, {what}: {reason}"
        if self.no_roofline:
            yield f"no roofline plot: {self.no_roofline}"


_HEADER = ("who", "what", "batch", "min", "mean", "p50", "p90", "p95", "p99", "runs", "unit")
_ENGINE_HEADER = ("engine alone", "batch", "shape", "ms", "TFLOP/s", "operations/byte")


def _cells(figure: Figure) -> Cells:
    values = ["" if value is None else number(value) for value in figure.statistics().values()]
    if len(figure.samples) == 1:  # there is but one number to say
        values = ["", "", values[2], "", "", ""]
    return figure.who, figure.what, str(figure.batch), *values, str(len(figure.samples)), figure.unit


def _engine_cells(runs: EngineRuns) -> Cells:
    shape = " ".join(f"{name} {length}" for name, length in runs.axes.items())
    told = ("–" if value is None else number(value) for value in (runs.tflops, runs.intensity))
    return runs.name, str(runs.batch), shape, number(runs.as_json()["ms"]), *told
