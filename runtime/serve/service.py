"""Requests in, results out: devices at work behind one queue, and another bundle in their place when it is wanted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdxl_trt.errors import GpuLost, UsageError
from sdxl_trt.runtime.pipeline import Pipeline
from sdxl_trt.runtime.request import Request
from sdxl_trt.runtime.serve.job import Job, Terms
from sdxl_trt.runtime.serve.limits import Busy, Limits, NotServing
from sdxl_trt.runtime.serve.worker import Observer, Worker
from sdxl_trt.spec import LATENT_SCALE, ModelSpec, Profile

Size = tuple[int, int]

STARTING, READY, DRAINING, FAILED = "starting", "ready", "draining", "failed"

MOVES = 1
"""A request that fails with so many devices and one more does not get another: it may be what breaks them."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How a bundle is opened and prepared, the same for every one that is loaded."""

    open: Callable[[Path, str], Pipeline]
    """A pipeline of a bundle's folder on a device."""
    devices: Sequence[str]
    sizes: Sequence[Size] = ()
    """(width, height) in pixels, prepared before the first request; the model's own when empty."""
    warm: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Room:
    """A bundle, open on all devices."""

    bundle: Path
    workers: Sequence[Worker]

    @property
    def model(self) -> ModelSpec:
        """Of the bundle."""
        return self.workers[0].pipeline.model

    @property
    def profile(self) -> Profile:
        """The sizes that its engines take."""
        return self.workers[0].pipeline.target.profile

    def alive(self) -> list[Worker]:
        """Devices that did not fail."""
        return [worker for worker in self.workers if not worker.is_lost]


class Service:
    """All devices of a host. From any thread.

    Args:
        setup: how bundles are opened.
        limits: what is refused.
        observer: told of steps and of requests that end.
    """

    def __init__(self, setup: Setup, limits: Limits, observer: Observer) -> None:
        self.limits, self._setup, self._observer = limits, setup, observer
        self.state = STARTING
        self._room: Room | None = None
        self._old = list[Room]()
        self._lock = threading.RLock()
        self._loading = threading.Lock()

    @property
    def room(self) -> Room:
        """The bundle that requests go to.

        Raises:
            NotServing: there is none yet.
        """
        if self._room is None:
            raise NotServing("no bundle is loaded yet", fix="ask again when /readyz says so")
        return self._room

    def load(self, bundle: Path) -> Room:
        """Open a bundle and prepare it; requests go to it from then on. Those that run end where they began.

        One after the other where several threads ask. Where it fails, what was there goes on.

        Raises:
            SdxlTrtError: as of `Pipeline.load` and `Pipeline.warm_up`.
            NotServing: the service is ending.
        """
        with self._loading:
            room = self._opened(bundle)
            with self._lock:
                if self.state in (DRAINING, FAILED):
                    _close(room.workers)
                    raise NotServing("this service takes no bundle any more", got=self.state)
                old, self._room, self.state = self._room, room, READY
                for worker in room.workers:
                    worker.start()
                if old is not None:
                    self._old = [each for each in self._old if not _ended(each)] + [old]
                    for worker in old.workers:
                        worker.stop()
            return room

    def _opened(self, bundle: Path) -> Room:
        workers = list[Worker]()
        try:
            for device in self._setup.devices:
                pipeline = self._setup.open(bundle, device)
                workers.append(Worker(pipeline, device, self._observer, self._move))
                if self._setup.warm:
                    self._warm_up(workers[-1])
        except BaseException:
            _close(workers)
            raise
        return Room(bundle=bundle, workers=workers)

    def _warm_up(self, worker: Worker) -> None:
        model, profile = worker.pipeline.model, worker.pipeline.target.profile
        sizes = self._setup.sizes or [(profile.width.opt * LATENT_SCALE, profile.height.opt * LATENT_SCALE)]
        for size in sizes:
            profile.check_size(size)
        shapes = [(height // LATENT_SCALE, width // LATENT_SCALE) for width, height in sizes]
        worker.stepper.warm_up(shapes, model.text_encoders[0].tokens)

    def submit(self, request: Request, terms: Terms) -> Job:
        """Take a request; `Job.result` is a future of what it gives.

        Raises:
            UsageError, SchedulerError: it cannot be done, and nothing was started.
            Busy: the queue is full.
            NotServing: nothing is taken now.
        """
        while True:
            room = self.room
            self._check_open()
            worker = self._idlest(room)
            try:
                drafts = worker.pipeline.draft(request, None if terms.noise is None else len(terms.noise))
            except UsageError:
                if room is self._room and self.state == READY:
                    raise
                continue  # it was closed: another bundle came meanwhile, or the service ends
            self.limits.check(drafts, terms)
            job = Job(request, drafts, terms, time.monotonic())
            with self._lock:
                self._check_open()
                self._check_room_for_one_more()
                if room is self._room and worker.add(job):
                    return job  # else another bundle came meanwhile, or the device failed

    def _check_room_for_one_more(self) -> None:
        waiting = len(self.jobs())
        if waiting >= self.limits.queue:
            raise Busy(waiting, 1 + self.seconds_left() / max(1, waiting))

    def jobs(self) -> list[Job]:
        """Requests that wait or run, on all devices and of all bundles."""
        with self._lock:
            return [job for worker in self._workers() for job in worker.jobs]

    def cancel(self, job: Job) -> None:
        """Take a request back; does nothing where it is done."""
        job.cancel()
        for worker in self._workers():
            worker.wake()

    def _workers(self) -> list[Worker]:
        """Of the bundles that end, too."""
        with self._lock:
            return [worker for room in (*self._old, self._room) if room for worker in room.workers]

    def seconds_left(self) -> float:
        """Until all that waits and runs should be done."""
        with self._lock:
            workers = self._room.alive() if self._room else []
        return max((worker.left(worker.jobs) for worker in workers), default=0.0)

    def drain(self, seconds: float | None = None) -> bool:
        """Take no more requests, finish those that there are, and end. Returns whether all were finished in time.

        Args:
            seconds: after which what is left is cancelled; None: never.
        """
        with self._lock:
            if self.state != FAILED:
                self.state = DRAINING
            workers = self._workers()
        for worker in workers:
            worker.stop()
        until = None if seconds is None else time.monotonic() + seconds
        done = all(worker.join(None if until is None else max(0.0, until - time.monotonic())) for worker in workers)
        if not done:
            for job in self.jobs():
                self.cancel(job)
            for worker in workers:
                worker.join()
        return done

    def _check_open(self) -> None:
        if self.state != READY:
            raise NotServing("no requests are taken now", got=f"the service is {self.state}", expected="ready")

    def _idlest(self, room: Room) -> Worker:
        alive = room.alive()
        if not alive:
            raise NotServing("no device is left", got="all of them failed", fix="restart the service")
        return min(alive, key=lambda worker: worker.left(worker.jobs))

    def _move(self, lost: Worker, jobs: list[Job]) -> None:
        """A device failed: its requests begin again on another, if there is one."""
        with self._lock:
            room = next((each for each in [self._room, *self._old] if each and lost in each.workers), None)
            alive = room.alive() if room else []
            for job in jobs:
                worker = min(alive, key=lambda each: each.left(each.jobs), default=None)
                if worker is not None and job.moves < MOVES:
                    job.begin_again(worker.pipeline)
                    worker.add(job)
                else:
                    error = GpuLost(f"{lost.name} failed", got=f"{len(alive)} other devices", fix="try it again later")
                    if job.end(error):
                        self._observer.ended(job, error)
            if room is self._room and not alive:
                self.state = FAILED


def _close(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.pipeline.close()


def _ended(room: Room) -> bool:
    return all(worker.join(0) for worker in room.workers)
