"""The API of AUTOMATIC1111/stable-diffusion-webui: enough for webuiapi, Open WebUI and SillyTavern.

Prompts are read in A1111's syntax. Where A1111 has one user and one queue, here everybody has their own: progress,
interrupt and skip are about requests of the client who asks. An interrupted request ends with an error, where A1111
sends what there was so far.
"""

from __future__ import annotations

import base64
import time
from typing import Any

import numpy as np
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime.png import format_parameters, parse_parameters, read_png
from sdxl_trt.runtime.serve.http import a1111_lists
from sdxl_trt.runtime.serve.http.a1111_answers import answer, job_timestamp, request_of
from sdxl_trt.runtime.serve.http.a1111_inputs import Start, picture_bytes, start_of
from sdxl_trt.runtime.serve.http.a1111_models import ImageToImage, TextToImage
from sdxl_trt.runtime.serve.http.context import context_of, result_of, submit
from sdxl_trt.runtime.serve.http.errors import HttpError
from sdxl_trt.runtime.serve.http.pictures import encode
from sdxl_trt.runtime.serve.job import Job, Terms

router = APIRouter(prefix="/sdapi/v1", tags=["A1111"])
router.include_router(a1111_lists.router)


class PngInfo(BaseModel):
    """Body of png-info."""

    model_config = ConfigDict(extra="forbid", title="PNGInfoRequest")

    image: str


@router.post("/txt2img")
async def txt2img(http: HttpRequest, body: TextToImage) -> dict[str, Any]:
    """Pictures of a prompt."""
    _check(http, body)
    return await _made(http, body, None)


@router.post("/img2img")
async def img2img(http: HttpRequest, body: ImageToImage) -> dict[str, Any]:
    """Pictures of a prompt and a picture, and of a mask where that is to be painted anew."""
    _check(http, body)
    return await _made(http, body, await run_in_threadpool(start_of, body))


async def _made(http: HttpRequest, body: TextToImage, start: Start | None) -> dict[str, Any]:
    service = context_of(http).service
    request = request_of(body, start, service.room.model, service.limits)
    job = await submit(http, request, Terms(client=http.state.client))
    await result_of(http, job)
    return await run_in_threadpool(answer, body, start, job)


@router.get("/progress")
async def progress(http: HttpRequest, skip_current_image: bool = False) -> dict[str, Any]:
    """How far the client's oldest request is, and how many there are."""
    jobs = _own(http)
    state = {
        "skipped": False,
        "interrupted": any(job.cancelled for job in jobs),
        "stopping_generation": False,
        "job": f"request {jobs[0].number}" if jobs else "",
        "job_count": len(jobs),
        "job_timestamp": job_timestamp(jobs[0]) if jobs else "0",
        "job_no": 0,
        "sampling_step": 0,
        "sampling_steps": 0,
    }
    if not jobs:
        return {"progress": 0.0, "eta_relative": 0.0, "state": state, "current_image": None, "textinfo": None}
    job, (done, total) = jobs[0], jobs[0].progress
    job.wants_preview = job.wants_preview or not skip_current_image
    image = None if skip_current_image or job.preview is None else await run_in_threadpool(_shown, job.preview)
    passed = time.monotonic() - job.arrived
    return {
        "progress": done / total,
        "eta_relative": passed * (total - done) / done if done else context_of(http).service.seconds_left(),
        "state": state | {"sampling_step": done // len(job.all), "sampling_steps": total // len(job.all)},
        "current_image": image,
        "textinfo": job.stage,
    }


@router.post("/interrupt")
async def interrupt(http: HttpRequest) -> dict[str, Any]:
    """End all requests of the client."""
    for job in _own(http):
        context_of(http).service.cancel(job)
    return {}


@router.post("/skip")
async def skip(http: HttpRequest) -> None:
    """End the oldest request of the client."""
    for job in _own(http)[:1]:
        context_of(http).service.cancel(job)


@router.post("/png-info")
async def png_info(body: PngInfo) -> dict[str, Any]:
    """What a PNG file says of how it was made."""
    return await run_in_threadpool(_read, picture_bytes("image", body.image))


def _check(http: HttpRequest, body: TextToImage) -> None:
    """Refuse what is not done, before anything of that size is made."""
    body.check()
    context_of(http).service.room.profile.check_size((body.width, body.height))


def _own(http: HttpRequest) -> list[Job]:
    """Requests of the client that are not done, the oldest first."""
    jobs = list(context_of(http).jobs.values())  # other threads take theirs out
    return sorted((job for job in jobs if job.client == http.state.client), key=lambda job: job.number)


def _shown(pixels: NDArray[np.uint8]) -> str:
    return base64.b64encode(encode(Image.fromarray(pixels), "png")).decode()


def _read(file: bytes) -> dict[str, Any]:
    try:
        found = read_png(file)
    except UsageError as error:
        raise HttpError(
            422,
            "image does not say how it was made",
            code="invalid_image",
            param="image",
            got=error.got,
            expected=error.expected,
            fix=error.fix,
        ) from error
    text = format_parameters(found.prompt, found.negative_prompt, found.settings)
    parameters = {"Prompt": found.prompt, "Negative prompt": found.negative_prompt, **parse_parameters(text)[2]}
    return {"info": text, "items": {}, "parameters": parameters}
