"""What a run comes to: figures, and what they must be."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import numpy as np

from benchmarks.report import Aim, Report
from benchmarks.soaking import ledger as book
from benchmarks.soaking.process import END_SECONDS
from benchmarks.soaking.run import CLIENTS, Found, Plan
from benchmarks.soaking.slope import Line, fit
from sdxl_trt.bench.rows import Row

SERVER, CLIENT = "server", "clients"
GROWTH: Final = 32.0
"""MB an hour that memory may grow by: a picture of 128 pixels kept of every tenth request would be more."""
MORE_FILES: Final = 2
MORE_THREADS: Final = 8
"""Beyond what it had before, with nothing to do."""
LONG: Final = 600.0
"""Seconds of a run that can tell growth from the filling of memory for every size, which ends sooner."""
LEFT_OUT: Final = 1 / 15
"""Of the time, after each reload: memory is filled anew then, and the bundle from before may still be at work."""


def report(found: Found, plan: Plan, complaints: list[str]) -> Report:
    """Rows and aims.

    Args:
        found: what was seen.
        plan: of the run.
        complaints: lines of the server's log that tell of errors.
    """
    line = memory(found, plan)
    alike = ", ".join(f"{count} alike {how}" for how, count in found.deeds.alike.items())
    aims = [*_aims(found, complaints), *(_growth(line) if line else [])]
    return Report(
        title=f"{plan.seconds:g} s at {plan.load:g} of what the server can do",
        settings=asdict(plan),
        distributions=("sdxl-trt", "onnxruntime", "uvicorn", "fastapi", "numpy"),
        rows=[*_counts(found), *_times(found), *_memory(found, line), *(aim.row for aim in aims)],
        aims=aims,
        notes=(
            f"capacity: {CLIENTS} clients that ask one thing after the other; load counts what takes work",
            f"memory is judged in runs of {LONG:g} s and more; sure: 19 times of 20, by a line of least squares "
            "through the second half, with a jump at the reload in it",
            f"pictures asked for again: {alike or 'none'}",
        ),
        details=_details(found, complaints) | {"jumps": line.jumps if line else []},
    )


def memory(found: Found, plan: Plan) -> Line | None:
    """How memory grew in the second half; None: that was too short to say."""
    if plan.seconds < LONG:
        return None
    half = found.held[0].at + plan.seconds / 2
    loading = [(began, ended + LEFT_OUT * plan.seconds) for began, ended in found.reloads]
    held = [
        each
        for each in found.held
        if each.at >= half and not any(began <= each.at <= ended for began, ended in loading)
    ]
    return fit([each.at for each in held], [each.resident for each in held], [ended for _, ended in loading])


def _details(found: Found, complaints: list[str]) -> dict[str, Any]:
    return {
        "faults": [asdict(fault) for fault in found.deeds.ledger.faults[:50]],
        "complaints": complaints[:50],
        "variety": dict(sorted(found.deeds.variety.items())),
        "held": [asdict(each) for each in found.held],
        "idle": [asdict(each) for each in found.idle],
        "reloads": found.reloads,
        "the server's own count": found.ended,
    }


def _aims(found: Found, complaints: list[str]) -> list[Aim]:
    ledger, before, after = found.deeds.ledger, *found.idle
    done, cut = found.ended.get("done", 0), ledger.ended(book.LEFT)
    strange = max(0, found.answered - done) + max(0, done - found.answered - cut)
    most = {
        **{(CLIENT, f"{kind.lower()} requests"): (ledger.number_of(kind), 0) for kind in book.FAULTS},
        (SERVER, "requests that failed"): (found.ended.get("failed", 0), 0),
        (SERVER, "done, of which nobody knows"): (strange, 0),
        (SERVER, "errors in its log"): (len(complaints), 0),
        (SERVER, "requests left at the end"): (found.left, 0),
        (SERVER, "exit status"): (-1 if found.status is None else abs(found.status), 0),
        (SERVER, "open files more than before"): (after.files - before.files, MORE_FILES),
        (SERVER, "threads more than before"): (after.threads - before.threads, MORE_THREADS),
    }
    aims = [_aim(*name, value, bound) for name, (value, bound) in most.items()]
    aims.append(_aim(SERVER, "time to end", found.ending, END_SECONDS, unit="s"))
    return [*aims, _aim(SERVER, "bundles loaded meanwhile", len(found.reloads), 2, at_most=False)]


def _growth(line: Line) -> list[Aim]:
    return [_aim(SERVER, "memory surely grows by", _mb_per_hour(line.least), GROWTH, unit="MB/h")]


def _aim(who: str, what: str, value: float, bound: float, *, unit: str = "", at_most: bool = True) -> Aim:
    return Aim(row=Row(who=who, what=what, unit=unit, samples=(float(value),)), bound=bound, at_most=at_most)


def _counts(found: Found) -> list[Row]:
    return [
        Row(who=deed, what=end, unit="requests", samples=(count,))
        for deed, ends in found.deeds.ledger.counts().items()
        for end, count in ends.most_common()
    ]


def _times(found: Found) -> list[Row]:
    seconds: Any = np.percentile(found.deeds.seconds, (50, 95, 99)) if found.deeds.seconds else ()
    return [
        Row(who=SERVER, what="capacity", unit="requests/s", samples=(found.capacity,)),
        Row(who=CLIENT, what="requests sent", unit="requests/s", samples=(found.rate,)),
        *(
            Row(who=CLIENT, what=f"time to an answer, p{percent}", unit="s", samples=(float(value),))
            for percent, value in zip((50, 95, 99), seconds, strict=False)
        ),
    ]


def _memory(found: Found, line: Line | None) -> list[Row]:
    rows = [
        Row(who=SERVER, what=f"memory {when}", unit="MB", samples=(held.resident / 1e6,))
        for when, held in zip(("before", "after"), found.idle, strict=True)
    ]
    rows.append(Row(who=SERVER, what="memory", unit="MB", samples=tuple(each.resident / 1e6 for each in found.held)))
    if line is not None:
        rows.append(Row(who=SERVER, what="memory grows by", unit="MB/h", samples=(_mb_per_hour(line.slope),)))
        rows.append(Row(who=SERVER, what="error of that", unit="MB/h", samples=(_mb_per_hour(line.error),)))
        jumps = tuple(jump / 1e6 for jump in line.jumps)
        rows.append(Row(who=SERVER, what="memory jumps at the reload by", unit="MB", samples=jumps))
    return rows


def _mb_per_hour(bytes_per_second: float) -> float:
    return bytes_per_second * 3600 / 1e6
