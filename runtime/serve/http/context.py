"""What every handler works with, and how one waits for pictures without holding up the others."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from fastapi import Request as HttpRequest
from starlette.concurrency import run_in_threadpool

from sdxl_trt.runtime.request import Request
from sdxl_trt.runtime.results import Result
from sdxl_trt.runtime.serve.job import Job, Terms
from sdxl_trt.runtime.serve.service import Service

LOOK_SECONDS = 0.1
"""How often a handler that waits looks whether its client is still there."""


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
    otlp: str | None = None
    """Where traces go (an OTLP endpoint); None: nowhere."""
    pull: bool = False
    """/admin/reload may name bundles; else it loads again what was given at the start."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """Of one application."""

    service: Service
    settings: Settings
    jobs: dict[str, Job] = field(default_factory=dict)
    """Requests over HTTP that are not done, by request id."""


def context_of(http: HttpRequest) -> Context:
    """The application's context."""
    return cast(Context, http.app.state.context)


async def submit(http: HttpRequest, request: Request, terms: Terms) -> Job:
    """Hand a request to the service, which may open pictures and compute tables, beside the event loop.

    Raises:
        SdxlTrtError: as of `Service.submit`.
    """
    context = context_of(http)
    job = await run_in_threadpool(context.service.submit, request, terms)
    context.jobs[http.state.request_id] = job
    job.result.add_done_callback(lambda _: context.jobs.pop(http.state.request_id, None))
    return job


async def result_of(http: HttpRequest, job: Job) -> Result:
    """Wait for a request; where its client goes away, it is taken back.

    Raises:
        SdxlTrtError: what ended it instead.
    """
    future = asyncio.wrap_future(job.result)
    try:
        while not future.done():
            await asyncio.wait([future], timeout=LOOK_SECONDS)
            if not future.done() and await http.is_disconnected():
                context_of(http).service.cancel(job)
        return await future
    except asyncio.CancelledError:
        context_of(http).service.cancel(job)
        raise
