"""The steps of one device: which pictures make the next one, seated and stepped, and what comes of it."""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np

from sdxl_trt.errors import GpuLost, SdxlTrtError
from sdxl_trt.runtime.ensemble import go_on
from sdxl_trt.runtime.images.preview import preview
from sdxl_trt.runtime.pipeline import Pipeline
from sdxl_trt.runtime.results import check_finite
from sdxl_trt.runtime.serve.finishing import decode_partial, decode_picture
from sdxl_trt.runtime.serve.job import DECODING, DENOISING, Job, PictureWork
from sdxl_trt.runtime.serve.scheduler import Batch, Costs, Group, Room, choose
from sdxl_trt.runtime.serve.seats import Seats
from sdxl_trt.runtime.serve.side import FINISHING
from sdxl_trt.runtime.snapshots import AHEAD, Snapshot


class Host(Protocol):
    """Who the steps are made for."""

    def push(self, kind: int, rank: float, job: Job, work: Callable[[], None]) -> None:
        """Have something of a request done beside the steps; its errors end the request."""

    def end(self, job: Job, error: BaseException | None) -> None:
        """A request is done, or failed."""

    def stepped(self, pictures: int, rows: int, seconds: float) -> None:
        """A step was made."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Step:
    """A step that the device was given."""

    group: Group
    pictures: int
    rows: int
    pixels: int
    """Of the latents of one row."""
    snapshot: Snapshot
    looked_at: Sequence[tuple[Job, PictureWork, int, int | None]]
    """Pictures whose estimate somebody wants, their slots, and the number of the partial picture that it is."""
    began: float


class Stepper:
    """The loops of a pipeline's device. For one thread.

    Args:
        pipeline: whose engines are run.
        host: who the steps are made for.
    """

    def __init__(self, pipeline: Pipeline, host: Host) -> None:
        self._pipeline, self._host, self.costs = pipeline, host, Costs()
        slots = pipeline.target.profile.slots.max
        self._room = Room(slots=slots, rows=2 * slots)
        self._seats, self._steps = Seats(slots), deque[_Step]()
        self._settled = 0.0
        self._factors = pipeline.experts[0].vae.preview_factors()

    def warm_up(self, shapes: Sequence[tuple[int, int]], tokens: int) -> None:
        """Prepare steps of every number of rows for these sizes (latent height, width).

        How long they take says how many rows a step should have.
        """
        experts = self._pipeline.experts
        for expert in experts:
            expert.condition.warm_up()
        for height, width in shapes:
            for leg, expert in enumerate(experts):
                group = (leg, height, width, tokens)
                times = self._seats.keep(expert, group, (height, width, tokens)).measure()
                for rows, seconds in times.items():
                    self.costs.learn(group, height * width, rows, seconds)
                self._room.learn(group, times)
            if not self._pipeline.memory.swaps:
                experts[0].vae.warm_up(height, width)

    @property
    def busy(self) -> bool:
        """Steps are under way."""
        return bool(self._steps)

    def step(self, jobs: Sequence[Job]) -> bool:
        """Give the device the next step of these requests, as many ahead as it may have. Returns whether there was one.

        Raises:
            GpuLost: it failed.
        """
        batch = choose(jobs, self.costs, self._room)
        if batch is not None:
            self._step(batch)
        while self._steps and (batch is None or len(self._steps) > AHEAD or self._steps[0].snapshot.reached()):
            self._settle(self._steps.popleft())
        return batch is not None

    def make_way(self) -> None:
        """Wait for all steps, and take all pictures out of their loops: other engines take their memory."""
        self._settle_all()
        self._seats.park_all()

    def release(self, job: Job) -> None:
        """Free what a request has."""
        for picture in job.all:
            self._seats.leave(picture)
            picture.waiting = None

    def close(self) -> None:
        """Let all loops go."""
        self._steps.clear()
        self._seats.close()

    def _step(self, batch: Batch) -> None:
        pictures = [cast(PictureWork, picture) for picture in batch.pictures]
        first = pictures[0]
        plan = first.job.plans[first.leg]
        began, rows = time.monotonic(), batch.rows
        for picture in pictures:
            if picture.job.stage != DENOISING:
                picture.job.enter(DENOISING)
        try:  # a size that there is no memory for ends its requests, and no others
            loop = self._seats.arrange(plan.expert, batch, pictures, len(plan.prompt.text))
            finished = loop.step()
        except GpuLost:
            raise
        except SdxlTrtError as error:
            for picture in pictures:
                self._host.end(picture.job, error)
            return
        for picture in pictures:
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
        self._host.stepped(step.pictures, step.rows, seconds)
        for job, picture, slot, number in step.looked_at:
            latents = step.snapshot.estimate(slot)
            job.preview = preview(latents, self._factors)
            if number is not None:
                self._host.push(FINISHING, 0.0, job, functools.partial(decode_partial, picture, number, latents))

    def _settle_all(self) -> None:
        while self._steps:
            self._settle(self._steps.popleft())

    def _leg_done(self, picture: PictureWork) -> None:
        """A picture is denoised by one of the models: the next goes on, or it is decoded."""
        job = picture.job
        latents = self._seats.take(picture)
        self._settle_all()  # they are done: what somebody wants to see of them comes before the picture
        try:
            check_finite(latents, "denoising", job.plans[picture.leg].settings)
        except SdxlTrtError as error:
            self._host.end(job, error)
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
        self._host.push(FINISHING, 0.0, job, lambda: decode_picture(picture))


def _looked_at(pictures: Sequence[PictureWork]) -> list[tuple[Job, PictureWork, int, int | None]]:
    """Those whose estimate somebody wants after the step that was just made."""
    found = []
    for each in pictures:
        number = each.job.partial_at.get(each.evaluated)
        if each.place is not None and (number is not None or each.job.wants_preview):
            found.append((each.job, each, each.place.slot, number))
    return found
