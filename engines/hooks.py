"""What TensorRT calls back while it builds: for its progress, and for the bytes of the plan.

Its base classes come from the module of the flavour, so each hook's class is made for that module. An exception must
not cross into TensorRT, which would end the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


class Sink(Protocol):
    """Takes bytes, in order."""

    def write(self, data: bytes | memoryview) -> int:
        """Take all of `data`; returns its length."""


STEPS = 100
"""Steps of the stage that a build is reported as."""

Report = Callable[[int, int], None]
"""A `Progress` of one stage: takes steps done, and steps in all."""


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


def progress_monitor(trt: Any, report: Report) -> Any:
    """An IProgressMonitor that reports a build as a stage of `STEPS` steps, the last of which is left to the caller.

    TensorRT's phases nest: one that is running counts for its share of its parent's current step.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._lock = threading.Lock()
            self._phases: dict[str, _Phase] = {}
            self._reported = -1

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            with self._lock:
                self._phases[name] = _Phase(parent, max(steps, 1))
                self._report()

        def step_complete(self, name: str, _step: int) -> bool:
            with self._lock:
                self._phases[name].done += 1
                self._report()
            return True

        def phase_finish(self, name: str) -> None:
            with self._lock:
                del self._phases[name]

        def _report(self) -> None:
            done = min(int(STEPS * self._share(None)), STEPS - 1)
            if done > self._reported:
                self._reported = done
                report(done, STEPS)

        def _share(self, parent: str | None) -> float:
            """How much of a parent's current step its phases have done, 0 to 1."""
            phases = [(name, phase) for name, phase in self._phases.items() if phase.parent == parent]
            return min(sum((phase.done + self._share(name)) / phase.steps for name, phase in phases), 1.0)

    return Monitor()


def plan_writer(trt: Any, sink: Sink) -> Any:
    """An IStreamWriter into `sink`; what went wrong there is in `error` (an OSError or None)."""

    class PlanWriter(trt.IStreamWriter):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.error: OSError | None = None

        def write(self, data: bytes | memoryview) -> int:
            try:
                return sink.write(data)
            except OSError as error:
                self.error = error
                return 0

    return PlanWriter()
