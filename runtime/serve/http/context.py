"""What every handler works with, and how one waits for pictures without holding up the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from fastapi import Request as HttpRequest
from starlette.concurrency import run_in_threadpool

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime.request import Request
from sdxl_trt.runtime.results import Result
from sdxl_trt.runtime.serve.http.metrics import Metrics
from sdxl_trt.runtime.serve.http.pictures import check_pixels
from sdxl_trt.runtime.serve.job import Job, Terms
from sdxl_trt.runtime.serve.service import Service

LOOK_SECONDS = 0.1
"""How often a handler that waits looks whether its client is still there."""
MOST_STEPS = 1000
"""More than training has timesteps: refused before a table of them is computed."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of the server, not of the service behind it."""

    keys: Path | None = None
    """File of hashed API keys; None: everybody may ask."""
    body: int = 64 * 2**20
    """Bytes of a request's body at most."""
    body_seconds: float = 30.0
    """A body must have come after so long."""
    idle_seconds: float = 15.0
    """A connection without a request is closed after so long."""
    connections: int = 512
    """At a time."""
    otlp: str | None = None
    """Where traces go (an OTLP endpoint); None: nowhere."""
    pull: bool = False
    """/admin/reload may name bundles; else it loads again what was given at the start."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """Of one application."""

    service: Service
    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)
    """The service's observer too, where steps are to be counted."""
    load: Callable[[str | None], object] | None = None
    """Loads a bundle by its name, or that of the start, into the service; None: the folder that it has, again."""
    jobs: dict[str, Job] = field(default_factory=dict)
    """Requests over HTTP that are not done, by request id."""


def context_of(http: HttpRequest) -> Context:
    """The application's context."""
    return cast(Context, http.app.state.context)


async def submit(http: HttpRequest, request: Request, terms: Terms) -> Job:
    """Hand a request to the service, which may open pictures and compute tables, beside the event loop.

    Raises:
        SdxlTrtError: as of `Service.submit`.
        UsageError: it would take too much even to look at.
    """
    context = context_of(http)

    def submitted() -> Job:
        _refuse_enormous(request, context.service.limits.images)
        return context.service.submit(request, terms)

    job = await run_in_threadpool(submitted)
    request_id = http.state.request_id
    http.state.job = context.jobs[request_id] = job
    job.result.add_done_callback(lambda _: context.jobs.pop(request_id, None))  # holds neither job nor request
    return job


async def result_of(http: HttpRequest, job: Job) -> Result:
    """Wait for a request; where its client goes away, it is taken back.

    Raises:
        SdxlTrtError: what ended it instead.
    """
    future = asyncio.wrap_future(job.result)
    future.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, if nobody waits
    try:
        while not future.done():
            await asyncio.wait([future], timeout=LOOK_SECONDS)
            if not future.done() and await http.is_disconnected():
                context_of(http).service.cancel(job)
        return await future
    except asyncio.CancelledError:
        future.cancel()  # else it complains that nobody asked what came of it
        context_of(http).service.cancel(job)
        raise


def _refuse_enormous(request: Request, most_images: int) -> None:
    """Refuse what takes memory or time before `Limits` can see it."""
    seeds = len(request.seed) if isinstance(request.seed, Sized) else 1
    for name, got, most in (
        ("pictures", seeds, most_images),
        ("steps", request.steps, MOST_STEPS),
        ("refiner_steps", request.refiner_steps, MOST_STEPS),
    ):
        if isinstance(got, int) and got > most:
            text = str(got) if got < 10**12 else "far more"
            raise UsageError(f"too many {name}", got=text, expected=f"at most {most}", fix="ask for less")
    for name, data in (("image", request.image), ("mask", request.mask)):
        if isinstance(data, bytes):
            check_pixels(data, name)
