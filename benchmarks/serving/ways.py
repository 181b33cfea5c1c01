"""The three ways on real engines: the same bundle, each with a pipeline of its own that has all threads.

one at a time          `Pipeline.run`, in the order of arrival
request-level batching the same encoding, loop and decoding, one padded batch after the other
step-level batching    the service itself
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.clock import Clock, Watch
from benchmarks.serving.figures import Served
from benchmarks.serving.load import Arrival, Asked, Size
from benchmarks.serving.turns import Gather, Made, serve_in_turns
from sdxl_trt.bench.machine import usable_cpus
from sdxl_trt.progress import silent
from sdxl_trt.runtime import Pipeline, Request
from sdxl_trt.runtime.loop import Loop
from sdxl_trt.runtime.noise import RNGS
from sdxl_trt.runtime.recent import Recent
from sdxl_trt.runtime.results import Result, decode
from sdxl_trt.runtime.serve.job import Job, Terms
from sdxl_trt.runtime.serve.limits import Limits
from sdxl_trt.runtime.serve.service import Service, Setup
from sdxl_trt.runtime.slots import SlotRequest
from sdxl_trt.spec import LATENT_SCALE

GUIDANCE: Final = 5.0
_prompts = itertools.count()


def request_of(asked: Asked, number: int) -> Request:
    """A request to the demo model, with a prompt that none had before: it is not encoded yet."""
    return Request(
        prompt=f"a red circle above a blue square, picture {next(_prompts)}",
        steps=asked.steps,
        guidance=GUIDANCE if asked.guided else 1.0,
        seed=number,
        size=asked.size,
    )


def open_pipeline(bundle: Path, device: str = "cpu") -> Pipeline:
    """As every way has it."""
    return Pipeline.load(bundle, device=device, threads=usable_cpus())


class OneAtATime:
    """First come, first served.

    Args:
        bundle: the demo model's.
        sizes: that are asked for.
    """

    def __init__(self, bundle: Path, sizes: Sequence[Size]) -> None:
        self._pipeline = open_pipeline(bundle)
        self._pipeline.warm_up(sizes)

    def make(self, asked: Asked, number: int) -> None:
        """One picture."""
        self._pipeline.run(request_of(asked, number))

    def __call__(self, arrivals: Sequence[Arrival]) -> Served:
        """Serve all of them."""
        watch = Watch()

        def make(batch: Sequence[Arrival]) -> Made:
            (each,) = batch
            self.make(each.asked, each.number)
            return Made(finished=[watch.now()], steps=each.asked.steps, rows=each.asked.steps * each.asked.rows)

        return serve_in_turns(arrivals, Gather(slots=1), make, watch)


class RequestLevel:
    """Padded batches, one after the other.

    Args:
        bundle: the demo model's.
        sizes: that are asked for.
    """

    def __init__(self, bundle: Path, sizes: Sequence[Size]) -> None:
        self._pipeline = open_pipeline(bundle)
        self._pipeline.warm_up(sizes)
        (self._expert,) = self._pipeline.experts
        self.slots = self._pipeline.target.profile.slots.max
        tokens, kept = self._pipeline.model.text_encoders[0].tokens, Recent[Size, Loop](0)
        self._loops = dict[Size, Loop]()
        for width, height in sizes:
            shape = (self.slots, height // LATENT_SCALE, width // LATENT_SCALE, tokens)
            self._loops[width, height] = kept.keep((width, height), partial(self._expert.new_loop, kept, *shape))

    def step_seconds(self, size: Size) -> dict[int, float]:
        """Of a step by its rows."""
        return self._loops[size].measure()

    def __call__(self, arrivals: Sequence[Arrival], gather: Gather) -> Served:
        """Serve all of them."""
        watch = Watch()
        return serve_in_turns(arrivals, gather, lambda batch: self._make(batch, watch), watch)

    def _make(self, batch: Sequence[Arrival], clock: Clock) -> Made:
        plans = [self._pipeline.draft(request_of(each.asked, each.number))[0].encode() for each in batch]
        requests = [
            plan.begin([RNGS[plan.settings.rng](seed) for seed in plan.settings.seeds], None, refined=False)[0]
            for plan in plans
        ]
        finished = []
        for plan, latents in zip(plans, denoise(self._loops[batch[0].asked.size], requests), strict=True):
            decode(self._expert.vae, latents[None], plan.settings, silent)
            finished.append(clock.now())
        steps = max(each.asked.steps for each in batch)
        return Made(finished=finished, steps=steps, rows=steps * sum(each.asked.rows for each in batch))


def denoise(loop: Loop, requests: Sequence[SlotRequest]) -> list[NDArray[np.float32]]:
    """Final latents [4, h, w] of pictures of one size that step together until the longest is finished."""
    lengths = [request.table.evaluations for request in requests]
    slots = [loop.join(padded(request, max(lengths))) for request in requests]
    found = dict[int, NDArray[np.float32]]()
    for step in range(1, max(lengths) + 1):
        loop.step()
        ended = [slot for slot, length in zip(slots, lengths, strict=True) if length == step]
        found |= {slot: loop.latents(slot) for slot in ended}
    for slot in slots:
        loop.leave(slot)
    return [found[slot] for slot in slots]


def padded(request: SlotRequest, evaluations: int) -> SlotRequest:
    """The same with further evaluations that take its rows and lead to nothing: its latents are there before them."""
    table, more = request.table, evaluations - request.table.evaluations
    longer = replace(
        table,
        columns=np.concatenate([table.columns, np.zeros((more, table.columns.shape[1]), np.float32)]),
        noises=(*table.noises, *[None] * more),
    )
    guidance = np.broadcast_to(np.asarray(request.guidance, np.float32), table.evaluations)
    return replace(request, table=longer, guidance=np.pad(guidance, (0, more), mode="edge"))


class StepLevel:
    """The service.

    Args:
        bundle: the demo model's.
        sizes: that are asked for.
    """

    def __init__(self, bundle: Path, sizes: Sequence[Size]) -> None:
        setup = Setup(open=open_pipeline, devices=("cpu",), sizes=sizes)
        self.service = Service(setup, Limits(queue=100_000), self)
        self.service.load(bundle)
        self._steps = self._rows = 0

    def stepped(self, pictures: int, rows: int, seconds: float) -> None:  # noqa: ARG002
        """A step was made."""
        self._steps, self._rows = self._steps + 1, self._rows + rows

    def ended(self, job: Job, error: BaseException | None) -> None:
        """A request is done: its future says how."""

    def __call__(self, arrivals: Sequence[Arrival]) -> Served:
        """Serve all of them."""
        self._steps = self._rows = 0
        watch, finished, told = Watch(), dict[int, float](), threading.Semaphore(0)

        def tell(number: int, _: Future[Result]) -> None:
            finished[number] = watch.now()
            told.release()

        jobs = list[Job]()
        for each in arrivals:
            watch.wait_until(each.at)
            jobs.append(self.service.submit(request_of(each.asked, each.number), Terms(client=each.client)))
            jobs[-1].result.add_done_callback(partial(tell, each.number))
        for job in jobs:
            job.result.result()
            told.acquire()
        ends = [finished[each.number] for each in arrivals]
        return Served(arrivals=arrivals, finished=ends, steps=self._steps, rows=self._rows)
