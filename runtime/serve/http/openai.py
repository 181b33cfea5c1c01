"""OpenAI's images API: what its clients send, and what they read."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from sdxl_trt.bundle import MANIFEST_NAME
from sdxl_trt.runtime.images.opening import open_transparency
from sdxl_trt.runtime.request import Request
from sdxl_trt.runtime.serve.http.context import context_of, result_of, submit
from sdxl_trt.runtime.serve.http.errors import HttpError
from sdxl_trt.runtime.serve.http.openai_events import Partial, Partials, as_event, error_event
from sdxl_trt.runtime.serve.http.openai_forms import read_form
from sdxl_trt.runtime.serve.http.openai_models import STREAMED, Answer, Fields, Generation, edit_schema
from sdxl_trt.runtime.serve.http.pictures import check_pixels, encode, parameters_of
from sdxl_trt.runtime.serve.job import Job, Terms
from sdxl_trt.runtime.serve.service import Room
from sdxl_trt.spec.profile import format_size

if TYPE_CHECKING:
    from PIL.Image import Image

router = APIRouter(prefix="/v1", tags=["OpenAI"])

_NO_TOKENS = {"text_tokens": 0, "image_tokens": 0}
USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": _NO_TOKENS,
    "output_tokens_details": _NO_TOKENS,
}
"""Nothing here is counted in tokens."""
_GENERATION, _EDIT = "image_generation", "image_edit"
_ANSWERS: dict[int | str, dict[str, Any]] = {200: {"model": Answer, "content": STREAMED}}


@router.get("/models")
async def models(http: HttpRequest) -> dict[str, Any]:
    """The bundle's model."""
    return {"object": "list", "data": [_model(context_of(http).service.room)]}


@router.get("/models/{model:path}")
async def model(http: HttpRequest, model: str) -> dict[str, Any]:
    """The bundle's model, where that is its name."""
    _check_model(http, model)
    return _model(context_of(http).service.room)


@router.post("/images/generations", responses=_ANSWERS)
async def generations(http: HttpRequest, asked: Generation) -> Response:
    """Pictures of a prompt."""
    return await _pictures(http, asked, asked.to_request(), _GENERATION)


@router.post("/images/edits", openapi_extra={"requestBody": edit_schema()}, responses=_ANSWERS)
async def edits(http: HttpRequest) -> Response:
    """Pictures of a prompt and a picture; with a mask, what is transparent in it is painted anew."""
    form = await read_form(http)
    pictures: dict[str, Any] = {"image": form.image}
    if form.mask is not None:
        check_pixels(form.mask, "mask")
        pictures["mask"] = await run_in_threadpool(open_transparency, form.mask)
    return await _pictures(http, form.fields, form.fields.to_request(**pictures), _EDIT)


async def _pictures(http: HttpRequest, asked: Fields, request: Request, kind: str) -> Response:
    if asked.model is not None:
        _check_model(http, asked.model)
    partials = Partials()
    terms = Terms(
        client=_client(http, asked.user),
        priority=asked.priority,
        seconds=asked.deadline,
        partials=asked.partial_images or 0,
        on_partial=partials.put,
    )
    job = await submit(http, request, terms)
    if asked.stream:
        return await _streamed(http, job, partials, asked, kind)
    await result_of(http, job)
    return JSONResponse(await run_in_threadpool(_answer, job, asked))


async def _streamed(http: HttpRequest, job: Job, partials: Partials, asked: Fields, kind: str) -> Response:
    """It begins with the first event, so that whatever goes wrong before that has its status."""
    events = _events(http, job, partials, asked, kind)
    first = await anext(events)

    async def body() -> AsyncIterator[bytes]:
        async with aclosing(events):
            yield first
            try:
                async for event in events:
                    yield event
            except Exception as error:
                http.state.error = error
                yield error_event(error)

    return StreamingResponse(body(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def _events(http: HttpRequest, job: Job, partials: Partials, asked: Fields, kind: str) -> AsyncGenerator[bytes]:
    ended = asyncio.ensure_future(result_of(http, job))
    ended.add_done_callback(lambda _: partials.end())
    try:
        async for partial in partials:
            yield await run_in_threadpool(_partial, partial, asked, kind)
        result = await ended
        for index, seed in enumerate(result.seeds):
            shown = await run_in_threadpool(_encoded, job, index, asked)
            more = {"usage": USAGE, "image_index": index, "seed": seed}
            yield as_event(f"{kind}.completed", _common(shown, result.images[index], asked) | more)
    finally:
        ended.cancel()


def _partial(partial: Partial, asked: Fields, kind: str) -> bytes:
    shown = encode(partial.image, asked.kind, _quality(asked))
    more = {"partial_image_index": partial.number, "image_index": partial.index}
    return as_event(f"{kind}.partial_image", _common(shown, partial.image, asked) | more)


def _common(shown: bytes, image: Image, asked: Fields) -> dict[str, Any]:
    return {
        "b64_json": base64.b64encode(shown).decode(),
        "created_at": int(time.time()),
        **_format(image, asked),
    }


def _format(image: Image, asked: Fields) -> dict[str, Any]:
    return {
        "size": format_size(image.size),
        "output_format": asked.kind,
        "quality": "auto",
        "background": "opaque",
    }


def _answer(job: Job, asked: Fields) -> dict[str, Any]:
    result = job.result.result()
    data = [
        {"b64_json": base64.b64encode(_encoded(job, index, asked)).decode(), "revised_prompt": None, "seed": seed}
        for index, seed in enumerate(result.seeds)
    ]
    return {"created": int(time.time()), "data": data, **_format(result.images[0], asked), "usage": USAGE}


def _encoded(job: Job, index: int, asked: Fields) -> bytes:
    """A finished picture's file; a PNG file says how it was made."""
    parameters = parameters_of(job, index) if asked.kind == "png" else None
    return encode(job.result.result().images[index], asked.kind, _quality(asked), parameters)


def _quality(asked: Fields) -> int:
    return 100 if asked.output_compression is None else asked.output_compression


def _client(http: HttpRequest, user: str | None) -> str:
    """Who shares what: a key's owner; without keys whom the client says that it asks for, else where it is."""
    http.state.user = user
    return http.state.client if user is None or getattr(http.state, "key", None) else user


def _model(room: Room) -> dict[str, Any]:
    created = int((room.bundle / MANIFEST_NAME).stat().st_mtime)
    return {"id": room.model.name, "object": "model", "created": created, "owned_by": "sdxl-trt"}


def _check_model(http: HttpRequest, name: str) -> None:
    known = context_of(http).service.room.model.name
    if name != known:
        raise HttpError(
            404,
            "this model is not here",
            code="model_not_found",
            param="model",
            got=f"{name!r:.80}",
            expected=known,
            fix="leave model out, or see GET /v1/models",
        )
