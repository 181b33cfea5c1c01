"""Bodies of requests: never too large, too slow, or JSON that is none. What comes behind sees whole bodies alone."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sdxl_trt.decode import DecodeError, loads
from sdxl_trt.runtime.serve.http.context import Settings
from sdxl_trt.runtime.serve.http.errors import HttpError
from sdxl_trt.runtime.serve.limits import NotServing

SHARE = 16
"""All bodies that are held at a time are together at most so many times the largest that one may be."""
DROPPED, DROP_SECONDS = 4, 2.0
"""What still comes of a body that is up to so many times too large is read for so long: who sends it reads no answer
before."""
_LARGE = 2**18
"""Bytes of JSON that take milliseconds to check."""


class Bodies:
    """ASGI middleware.

    Args:
        app: behind it.
        settings: say how large and how slow a body may be.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a request's body, and hand the request on.

        Raises:
            HttpError: 413, 408, or 400 where it says that it is JSON.
            NotServing: there is no memory for it now.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive)
        try:
            if await self._read(body, Headers(scope=scope)):
                await _check(body.data, Headers(scope=scope).get("content-type", ""))
                await self._app(scope, body.receive, send)
        finally:
            self._held -= body.size

    async def _read(self, body: _Body, headers: Headers) -> bool:
        """Returns whether it came whole; else the client is gone."""
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._settings.body:
            if "expect" not in headers and int(length[:20]) <= DROPPED * self._settings.body:
                await body.drop()
            raise self._too_large(f"{length[:20]} bytes")
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                while body.more and body.size <= self._settings.body:
                    self._held += await body.read()
                    if self._held > SHARE * self._settings.body:
                        raise NotServing("too many large requests at a time", fix="ask again in some seconds")
        except TimeoutError:
            raise HttpError(
                408,
                "the request's body did not come in time",
                code="request_timeout",
                got=f"{body.size} bytes in {self._settings.body_seconds:g} s",
                expected="all of it",
                fix="send it without pauses",
            ) from None
        if body.size > self._settings.body:
            await body.drop()
            raise self._too_large("more than that")
        return not body.gone

    def _too_large(self, got: str) -> HttpError:
        return HttpError(
            413,
            "the request's body is too large",
            code="request_too_large",
            got=got,
            expected=f"at most {self._settings.body} bytes",
            fix="scale pictures down; or start the server with a larger --max-body",
        )


class _Body:
    """What has come of a body, and then a way to receive it again."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._parts = list[bytes]()
        self.size = 0
        self.more, self.gone = True, False

    async def read(self) -> int:
        """Take the next part. Returns its bytes."""
        message = await self._receive()
        self.gone = message["type"] == "http.disconnect"
        self.more = not self.gone and message.get("more_body", False)
        part = message.get("body", b"")
        self._parts.append(part)
        self.size += len(part)
        return len(part)

    async def drop(self) -> None:
        """Let what still comes go, for a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DROP_SECONDS):
                while self.more:
                    message = await self._receive()
                    self.more = message["type"] == "http.request" and message.get("more_body", False)

    @property
    def data(self) -> bytes:
        """All of it."""
        self._parts = [b"".join(self._parts)]
        return self._parts[0]

    async def receive(self) -> Message:
        """The body as one message, once; then what comes after it."""
        if self._parts:
            data, self._parts = self.data, []
            return {"type": "http.request", "body": data, "more_body": False}
        return await self._receive()


async def _check(data: bytes, content_type: str) -> None:
    """Refuse JSON that Python's own reader would take, or break at."""
    kind = content_type.partition(";")[0].strip().lower()
    if not data or not (kind == "application/json" or kind.endswith("+json")):
        return
    try:
        if len(data) > _LARGE:
            await run_in_threadpool(loads, data, max_bytes=len(data))
        else:
            loads(data, max_bytes=len(data))
    except DecodeError as error:
        raise HttpError(
            400,
            "the body is not JSON",
            code="invalid_json",
            got=f"{error}"[:200],
            expected="JSON in UTF-8, without NaN and infinity",
            fix="send what a JSON library writes",
        ) from error
