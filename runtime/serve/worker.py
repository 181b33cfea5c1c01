"""One device at work: a thread that steps what the scheduler chooses, and has pictures begun and finished beside it."""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np

from sdxl_trt.errors import GpuLost, SdxlTrtError
from sdxl_trt.runtime.ensemble import go_on
from sdxl_trt.runtime.pipeline import Pipeline
from sdxl_trt.runtime.results import check_finite
from sdxl_trt.runtime.serve.finishing import begin_job, decode_partial, decode_picture
from sdxl_trt.runtime.serve.job import DECODING, DENOISING, Cancelled, DeadlinePassed, Job, PictureWork
from sdxl_trt.runtime.serve.scheduler import PATIENCE, Batch, Costs, Group, Room, choose
from sdxl_trt.runtime.serve.seats import Seats
from sdxl_trt.runtime.serve.side import BEGINNING, FINISHING, PARTIAL, Side
from sdxl_trt.runtime.snapshots import AHEAD, Snapshot

SWAP_SECONDS = 5.0
"""Where engines take turns in memory, what comes before and after the loops waits so long at most while they run."""


class Observer(Protocol):
    """Who counts."""

    def stepped(self, pictures: int, rows: int, seconds: float) -> None:
        """A step was made."""

    def ended(self, job: Job, error: BaseException | None) -> None:
        """A request is done, or failed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Step:
    """A step that the device was given."""

    group: Group
    pictures: int
    rows: int
    pixels: int
    """Of the latents of one row."""
    snapshot: Snapshot
    looked_at: Sequence[tuple[PictureWork, int, int | None]]
    """Pictures whose estimate somebody wants, their slots, and the number of the partial picture that it is."""
    began: float


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
        self.pipeline, self.name, self.costs = pipeline, name, Costs()
        slots = pipeline.target.profile.slots.max
        self.room = Room(slots=slots, rows=2 * slots)
        self._budgets = dict[tuple[int, int], int]()
        self._observer, self._lost = observer, lost
        self._jobs = list[Job]()
        self._changed = threading.Condition()
        self._stopping = self.is_lost = False
        self._seats, self._side, self._steps = Seats(slots), Side(), deque[_Step]()
        self._settled = 0.0
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
        self._push(BEGINNING, rank, job, lambda: begin_job(job))
        return True

    def wake(self) -> None:
        """Look at requests anew: one was cancelled."""
        with self._changed:
            self._changed.notify()

    @property
    def jobs(self) -> list[Job]:
        """Those that are not done."""
        with self._changed:
            return list(self._jobs)

    def left(self, jobs: Sequence[Job]) -> float:
        """Seconds of work that is left of requests, by what rows have cost so far."""
        return sum(picture.left(self.costs) for job in jobs for picture in job.pictures)

    def stop(self) -> None:
        """Finish what there is, then end; does not wait."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def join(self, seconds: float | None = None) -> bool:
        """Wait until it has ended. Returns whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def warm_up(self, shapes: Sequence[tuple[int, int]], tokens: int) -> None:
        """Prepare steps of every number of rows for these sizes (latent height, width), before `start`.

        How long they take says how many rows a step should have: the fewest that lose a twentieth of the pace.
        """
        experts = self.pipeline.experts
        for expert in experts:
            expert.condition.warm_up()
        for height, width in shapes:
            for leg, expert in enumerate(experts):
                loop = self._seats.keep(expert, (leg, height, width, tokens), (height, width, tokens))
                times = loop.measure()
                for rows, seconds in times.items():
                    self.costs.learn((leg, height, width, tokens), height * width, rows, seconds)
                pace = {rows: rows / seconds for rows, seconds in times.items()}
                enough = min(rows for rows in pace if pace[rows] >= 0.95 * max(pace.values()))
                self._budgets[height, width] = max(2, enough, self._budgets.get((height, width), 0))
            if not self._swaps:
                experts[0].vae.warm_up(height, width)

    def _push(self, kind: int, rank: float, job: Job, work: Callable[[], None]) -> None:
        def guarded() -> None:
            if not job.result.done():
                try:
                    work()
                except SdxlTrtError as error:
                    self._end(job, error)
                except Exception as error:  # a bug of ours must not stop the others
                    self._end(job, error)
                if job.complete:
                    self._end(job, None)
            self.wake()

        self._side.push(kind, rank, guarded)
        self.wake()

    def _end(self, job: Job, error: BaseException | None) -> None:
        """Tell a request's end; its pictures leave their slots at the next sweep."""
        if isinstance(error, GpuLost):
            self.is_lost = True
            return
        with self._changed:
            if job.result.done():
                return
            job.fail(error) if error else job.finish()
        self._observer.ended(job, error)

    def _serve(self) -> None:
        try:
            while self._wait():
                self._turn()
        except GpuLost:
            self.is_lost = True
        except BaseException as error:
            for job in self.jobs:
                self._end(job, error)
            raise
        finally:
            self._side.close()
            if self.is_lost:
                self._lost(self, [job for job in self.jobs if not job.result.done()])
            self._seats.close()
            self.pipeline.close()

    def _wait(self) -> bool:
        """Sleep until there is something to do; False: it is time to end."""
        with self._changed:
            while not self.is_lost:
                self._sweep()
                if self._steps or any(p.group is not None for job in self._jobs for p in job.pictures):
                    return True
                if self._inline and self._side.oldest is not None:
                    return True
                if self._stopping and not self._jobs:
                    return False
                self._changed.wait(self._until_next_deadline())
        raise GpuLost(f"{self.name} failed")

    def _until_next_deadline(self) -> float | None:
        expiries = [job.expires for job in self._jobs if job.expires is not None]
        return max(0.0, min(expiries) - time.monotonic()) if expiries else None

    def _sweep(self) -> None:
        """Let go of requests that are done, cancelled or too late."""
        now = time.monotonic()
        for job in list(self._jobs):
            if not job.result.done() and job.cancelled:
                self._end(job, Cancelled("the request was cancelled"))
            elif not job.result.done() and job.expires is not None and now >= job.expires:
                self._end(job, _too_late(job))
            if job.result.done():
                self._jobs.remove(job)
                for picture in job.all:
                    self._seats.leave(picture)
                    picture.waiting = None

    def _turn(self) -> None:
        """One step, and what is to be done between two."""
        oldest = self._side.oldest if self._swaps else None
        if oldest is not None and oldest < time.monotonic() - SWAP_SECONDS:
            self._do_all_beside()
        batch = self._choose()
        if batch is not None:
            self._step(batch)
        while self._steps and (batch is None or len(self._steps) > AHEAD or self._steps[0].snapshot.reached()):
            self._settle(self._steps.popleft())
        if self._inline and not self._swaps:
            self._side.run_one()
        elif self._swaps and batch is None:
            self._do_all_beside()

    def _do_all_beside(self) -> None:
        """Where engines take turns: everything that waits for another than the loop's."""
        self._seats.park_all()
        while self._side.run_one():
            pass

    def _choose(self) -> Batch | None:
        jobs = self.jobs
        batch = choose(jobs, self.costs, self.room)
        if batch is None:
            return None
        first = cast(PictureWork, batch.pictures[0])
        _, height, width = first.job.drafts[0].settings.latent_shape
        budget = self._budgets.get((height, width), self.room.rows)
        return choose(jobs, self.costs, Room(slots=self.room.slots, rows=budget)) if budget < batch.rows else batch

    def _step(self, batch: Batch) -> None:
        pictures = [cast(PictureWork, picture) for picture in batch.pictures]
        first = pictures[0]
        plan = first.job.plans[first.leg]
        loop = self._seats.arrange(plan.expert, batch, pictures, len(plan.prompt.text))
        began, rows = time.monotonic(), batch.rows
        try:
            finished = loop.step()
        except GpuLost:
            raise
        except SdxlTrtError as error:
            for picture in pictures:
                self._end(picture.job, error)
            return
        for picture in pictures:
            if picture.job.stage != DENOISING:
                picture.job.enter(DENOISING)
            picture.done += 1
        looked_at = _looked_at(pictures)
        self._steps.append(
            _Step(
                group=batch.group,
                pictures=len(pictures),
                rows=rows,
                pixels=first.job.pixels,
                snapshot=loop.snapshot(keep=bool(looked_at)),
                looked_at=looked_at,
                began=began,
            )
        )
        for picture in pictures:
            if picture.place is not None and picture.place.slot in finished:
                self._leg_done(picture)

    def _settle(self, step: _Step) -> None:
        """A step is done, or is waited for: note how long it took, and hand on what somebody wants to see."""
        step.snapshot.wait()
        now = time.monotonic()
        seconds, self._settled = now - max(step.began, self._settled), now
        self.costs.learn(step.group, step.pixels, step.rows, seconds)
        self._observer.stepped(step.pictures, step.rows, seconds)
        for picture, slot, number in step.looked_at:
            latents = picture.job.preview = step.snapshot.estimate(slot)
            if number is not None:
                self._push(PARTIAL, 0.0, picture.job, functools.partial(decode_partial, picture, number, latents))

    def _leg_done(self, picture: PictureWork) -> None:
        """A picture is denoised by one of the models: the next goes on, or it is decoded."""
        job = picture.job
        latents = self._seats.take(picture)
        try:
            check_finite(latents, "denoising", job.plans[picture.leg].settings)
        except SdxlTrtError as error:
            self._end(job, error)
            return
        if picture.leg + 1 < len(job.plans):
            before, plan = job.plans[picture.leg : picture.leg + 2]
            picture.leg, picture.done = picture.leg + 1, 0
            (request,) = go_on(plan, before.table, [picture.started()], latents[None])
            picture.request = picture.waiting = request
            return
        picture.latents = np.asarray(latents)
        if not job.pictures:
            job.enter(DECODING)
        self._push(FINISHING, 0.0, job, lambda: decode_picture(picture))


def _looked_at(pictures: Sequence[PictureWork]) -> list[tuple[PictureWork, int, int | None]]:
    """Those whose estimate somebody wants after the step that was just made."""
    found = []
    for each in pictures:
        number = each.job.partial_at.get(each.evaluated)
        if each.place is not None and (number is not None or each.job.wants_preview):
            found.append((each, each.place.slot, number))
    return found


def _too_late(job: Job) -> DeadlinePassed:
    done, total = job.progress
    return DeadlinePassed(
        "the request was not done in the time it was given",
        got=f"{job.terms.seconds:g} s, {done} of {total} evaluations done",
        expected="a deadline that leaves time for the queue",
        fix="a longer deadline, fewer steps, or a higher priority",
    )
