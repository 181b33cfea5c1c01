"""Progress on standard error: bars on a terminal, a line per stage elsewhere, so that logs stay readable."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

from sdxl_trt.progress import Progress


@contextlib.contextmanager
def shown_progress(*, quiet: bool = False) -> Iterator[Progress]:
    """A `Progress` for the length of the block.

    Args:
        quiet: nothing at all off a terminal (for work of seconds).
    """
    if sys.stderr.isatty():
        with _bars() as progress:
            yield progress
    elif quiet:
        yield lambda _stage, _done, _total: None
    else:
        yield _Lines()


class _Lines:
    """`<stage> … 12.3 s`, once a stage is done."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, stage: str, done: int, total: int) -> None:
        with self._lock:
            started = self._started.setdefault(stage, time.monotonic())
            if done >= total:
                print(f"{stage} … {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
                del self._started[stage]


@contextlib.contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Task, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Count(MofNCompleteColumn):
        """Steps done and in all; bytes, where there are so many."""

        def render(self, task: Task) -> Text:
            return DownloadColumn().render(task) if (task.total or 0) >= 10**6 else super().render(task)

    columns = (TextColumn("{task.description}"), BarColumn(), Count(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=Console(stderr=True)) as bars:

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)
            if done >= total:
                del tasks[stage]

        yield progress
