"""A service over a bundle, for tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.serve.job import Job
from sdxl_trt.runtime.serve.limits import Limits
from sdxl_trt.runtime.serve.service import Service, Setup


class Counting:
    """Notes every step and every end."""

    def __init__(self) -> None:
        self.steps = list[tuple[int, int, float]]()
        """Pictures, rows and seconds."""
        self.ends = list[tuple[Job, BaseException | None]]()
        self._lock = threading.Lock()

    def stepped(self, pictures: int, rows: int, seconds: float) -> None:
        with self._lock:
            self.steps.append((pictures, rows, seconds))

    def ended(self, job: Job, error: BaseException | None) -> None:
        with self._lock:
            self.ends.append((job, error))


def open_service(
    bundle: Path,
    *,
    observer: Counting | None = None,
    devices: Sequence[str] = ("cpu",),
    limits: Limits | None = None,
    memory: str = "auto",
    warm: bool = False,
) -> Service:
    """A service that has loaded a bundle, with one thread for each engine."""

    def opened(folder: Path, device: str) -> Pipeline:
        return Pipeline.load(folder, device=device, threads=1, memory=memory)

    setup = Setup(open=opened, devices=devices, sizes=[(64, 64)], warm=warm)
    service = Service(setup, limits or Limits(steps=200), observer or Counting())
    service.load(bundle)
    return service


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for something that another thread does."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.005)
