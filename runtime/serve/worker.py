"""One device at work: a thread that steps what the scheduler chooses, and has pictures begun and finished beside it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from sdxl_trt.errors import GpuLost
from sdxl_trt.memory import give_back
from sdxl_trt.runtime.pipeline import Pipeline
from sdxl_trt.runtime.serve.finishing import begin_job
from sdxl_trt.runtime.serve.job import Cancelled, DeadlinePassed, Job
from sdxl_trt.runtime.serve.scheduler import PATIENCE
from sdxl_trt.runtime.serve.side import BEGINNING, SIDE_SECONDS, Side
from sdxl_trt.runtime.serve.stepper import Stepper

_log = logging.getLogger(__name__)

SWAP_SECONDS = 5.0
"""Where engines take turns in memory, what comes before and after the loops waits so long at most while they run."""


class Observer(Protocol):
    """Who counts."""

    def stepped(self, pictures: int, rows: int, seconds: float) -> None:
        """A step was made."""

    def ended(self, job: Job, error: BaseException | None) -> None:
        """A request is done, or failed."""


class Worker:
    """A pipeline's device, and the requests that were given to it.

    Args:
        pipeline: nobody else uses it; closed with this.
        name: of the device.
        observer: told of steps and of requests that end.
        lost: called once with all requests that are left where the device failed for good.
    """

    def __init__(
        self, pipeline: Pipeline, name: str, observer: Observer, lost: Callable[[Worker, list[Job]], None]
    ) -> None:
        self.pipeline, self.name, self.stepper = pipeline, name, Stepper(pipeline, self)
        self._observer, self._lost = observer, lost
        self._jobs = list[Job]()
        self._changed = threading.Condition()
        self._stopping = self._awake = self.is_lost = False
        self._side = Side()
        self._swaps = pipeline.memory.swaps
        self._inline = pipeline.captures or self._swaps
        self._thread = threading.Thread(target=self._serve, name=f"loop of {name}", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        if not self._inline:
            self._side.start(f"side of {self.name}")
        self._thread.start()

    def add(self, job: Job) -> bool:
        """Take a request; False: the device failed, or takes none any more."""
        with self._changed:
            if self.is_lost or self._stopping:
                return False
            self._jobs.append(job)
        rank = self.left([job]) + job.arrived / PATIENCE
        self.push(BEGINNING, rank, job, lambda: begin_job(job))
        return True

    def wake(self) -> None:
        """Look at requests anew: one was cancelled, or may go on."""
        with self._changed:
            self._awake = True
            self._changed.notify()

    @property
    def jobs(self) -> list[Job]:
        """Those that are not done."""
        with self._changed:
            return list(self._jobs)

    def left(self, jobs: Sequence[Job]) -> float:
        """Seconds of work that is left of requests, by what rows have cost so far."""
        return sum(picture.left(self.stepper.costs) for job in jobs for picture in job.pictures)

    def stop(self) -> None:
        """Finish what there is, then end; does not wait."""
        self._stopping = True
        self.wake()

    def join(self, seconds: float | None = None) -> bool:
        """Wait until it has ended. Returns whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def push(self, kind: int, rank: float, job: Job, work: Callable[[], None]) -> None:
        """Have something of a request done beside the steps; its errors end the request."""

        def guarded() -> None:
            if not job.result.done():
                try:
                    work()
                except Exception as error:  # a bug of ours, too, must not stop the others
                    self.end(job, error)
                if job.complete:
                    self.end(job, None)
            self.wake()

        self._side.push(kind, rank, guarded)
        self.wake()

    def end(self, job: Job, error: BaseException | None) -> None:
        """Tell a request's end; its pictures leave their slots at the next sweep."""
        if isinstance(error, GpuLost):
            self.is_lost = True  # it begins again on another device
        elif job.end(error):
            self._observer.ended(job, error)

    def stepped(self, pictures: int, rows: int, seconds: float) -> None:
        """A step was made."""
        self._observer.stepped(pictures, rows, seconds)

    def _serve(self) -> None:
        try:
            while self._wait():
                self._turn()
        except GpuLost as error:
            _log.error("device lost", extra={"device": self.name, "error": str(error)})
            self.is_lost = True
        except Exception:  # a bug of ours: this device is not used any more
            _log.exception("device stopped", extra={"device": self.name})
            self.is_lost = True
        finally:
            self._side.close()
            if self.is_lost:
                self._lost(self, self.jobs)
            self.stepper.close()
            self.pipeline.close()
            give_back()

    def _wait(self) -> bool:
        """Sleep until there is something to do; False: it is time to end."""
        while True:
            self._sweep()
            if self.is_lost:
                raise GpuLost(f"{self.name} failed")
            if self.stepper.busy or (self._inline and self._side.oldest is not None):
                return True
            jobs = self.jobs
            if any(picture.group is not None for job in jobs for picture in job.pictures):
                return True
            with self._changed:
                if self._stopping and not self._jobs:
                    return False
                self._changed.wait_for(lambda: self._awake, self._until_next_deadline())
                self._awake = False

    def _until_next_deadline(self) -> float | None:
        expiries = [job.expires for job in self._jobs if job.expires is not None]
        return max(0.0, min(expiries) - time.monotonic()) if expiries else None

    def _sweep(self) -> None:
        """Let go of requests that are done, cancelled or too late."""
        now = time.monotonic()
        for job in self.jobs:
            if not job.result.done() and job.cancelled:
                self.end(job, Cancelled("the request was cancelled"))
            elif not job.result.done() and job.expires is not None and now >= job.expires:
                self.end(job, _too_late(job))
            if job.result.done():
                with self._changed:
                    self._jobs.remove(job)
                self.stepper.release(job)

    def _turn(self) -> None:
        """One step, and what is to be done between two."""
        oldest = self._side.oldest if self._swaps else None
        if oldest is not None and oldest < time.monotonic() - SWAP_SECONDS:
            self._do_all_beside()
        stepped = self.stepper.step(self.jobs)
        if self._swaps and not stepped:
            self._do_all_beside()
        elif self._inline and not self._swaps:
            self._side.run(SIDE_SECONDS)

    def _do_all_beside(self) -> None:
        """Where engines take turns: everything that waits for another than the loop's."""
        self.stepper.make_way()
        while self._side.run_one():
            pass


def _too_late(job: Job) -> DeadlinePassed:
    done, total = job.progress
    return DeadlinePassed(
        "the request was not done in the time it was given",
        got=f"{job.terms.seconds:g} s, {done} of {total} evaluations done",
        expected="a deadline that leaves time for the queue",
        fix="a longer deadline, fewer steps, or a higher priority",
    )
