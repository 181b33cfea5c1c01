"""What orchestrators, Prometheus and operators ask for."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from sdxl_trt.runtime.serve.http.context import context_of
from sdxl_trt.runtime.serve.http.errors import HttpError
from sdxl_trt.runtime.serve.http.loader import Loader, Loading
from sdxl_trt.runtime.serve.http.shapes import AGAIN_SECONDS
from sdxl_trt.runtime.serve.job import Job
from sdxl_trt.runtime.serve.service import FAILED, READY

router = APIRouter()


class Reload(BaseModel):
    """What to load."""

    model_config = ConfigDict(extra="forbid", strict=True)

    bundle: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """A folder or a place to pull from, where the server was started with --allow-pull; None: what it began with."""


def loader_of(http: Request) -> Loader:
    """The application's loader."""
    return cast(Loader, http.app.state.loader)


@router.get("/healthz", tags=["operations"])
async def healthz(http: Request) -> Response:
    """200: the process answers. 503: no device is left, and it ends."""
    state = context_of(http).service.state
    return JSONResponse({"status": state}, 503 if state == FAILED else 200)


@router.get("/readyz", tags=["operations"])
async def readyz(http: Request) -> Response:
    """200: requests are taken. 503: it starts and warms up, or ends."""
    state = context_of(http).service.state
    if state == READY:
        return JSONResponse({"status": state})
    return JSONResponse({"status": state}, 503, {"Retry-After": str(AGAIN_SECONDS)})


@router.get("/metrics", tags=["operations"], response_class=PlainTextResponse)
def metrics(http: Request) -> Response:
    """Counts, gauges and histograms in Prometheus's text format."""
    return Response(context_of(http).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.post("/admin/reload", tags=["operations"], status_code=202, responses={200: {"description": "It is loaded."}})
async def reload(http: Request, asked: Reload | None = None, wait: Annotated[bool, Query()] = False) -> Response:
    """Load the bundle anew, or another: requests that run end where they began, later ones go to the new one.

    Answers 202 at once; with wait=true 200 once it is loaded, or 422 with the error: what was there goes on then.
    """
    name = asked.bundle if asked else None
    if name is not None and not context_of(http).settings.pull:
        raise HttpError(
            403,
            "this server loads no bundle by name",
            code="forbidden",
            param="bundle",
            got=repr(name),
            expected="no bundle: the one of the start is loaded again",
            fix="start it with --allow-pull",
        )
    loading = loader_of(http).start(name)
    if not wait:
        return JSONResponse(loading.as_dict(), 202)
    await asyncio.wait([asyncio.wrap_future(loading.ended)])
    return JSONResponse(_loaded(http, loading), 422 if loading.ended.exception() else 200)


@router.get("/admin/reload", tags=["operations"])
async def reloaded(http: Request) -> dict[str, Any]:
    """The bundle that serves, and what came of the last one that was to be loaded."""
    return _loaded(http, loader_of(http).last)


@router.get("/admin/queue", tags=["operations"])
async def queue(http: Request) -> dict[str, Any]:
    """Requests that wait or run, the oldest first."""
    context, now = context_of(http), time.monotonic()
    jobs = sorted(context.jobs.copy().items(), key=lambda each: each[1].arrived)
    return {
        "state": context.service.state,
        "seconds_left": round(context.service.seconds_left(), 3),
        "requests": [_shown(request_id, job, now) for request_id, job in jobs],
    }


@router.delete("/admin/requests/{request_id}", tags=["operations"])
async def cancel(http: Request, request_id: str) -> dict[str, Any]:
    """Take a request back: its slots are free from the next step on."""
    context = context_of(http)
    job = context.jobs.get(request_id)
    if job is None:
        raise HttpError(
            404,
            "no request of that id waits or runs",
            code="not_found",
            param="request_id",
            got=f"{request_id!r:.80}",
            fix="see GET /admin/queue",
        )
    context.service.cancel(job)
    return {"id": request_id, "cancelled": True}


def _loaded(http: Request, loading: Loading | None) -> dict[str, Any]:
    service = context_of(http).service
    room = service.room if service.state == READY else None
    return {
        "state": service.state,
        "model": room.model.name if room else None,
        "content": room.model.content if room else None,
        "last": loading.as_dict() if loading else None,
    }


def _shown(request_id: str, job: Job, now: float) -> dict[str, Any]:
    done, total = job.progress
    return {
        "id": request_id,
        "client": job.client,
        "priority": job.priority,
        "stage": job.stage,
        "pictures": len(job.all),
        "evaluations": done,
        "of": total,
        "seconds": round(now - job.arrived, 3),
    }
