"""The outermost layer: every request has an id and a client, ends in one answer, and leaves one line in the log."""

from __future__ import annotations

import re
import secrets
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sdxl_trt.errors import SdxlTrtError
from sdxl_trt.runtime.serve.http.context import Context
from sdxl_trt.runtime.serve.http.logs import log, log_failure
from sdxl_trt.runtime.serve.http.shapes import answer
from sdxl_trt.runtime.serve.http.tracing import Tracing

PROBES = ("/healthz", "/readyz", "/metrics")
"""Asked for so often that they are not worth a line."""
_SAFE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


class Arrivals:
    """ASGI middleware.

    Args:
        app: what answers.
        context: of the application.
        tracing: where spans go; None: nowhere.
    """

    def __init__(self, app: ASGIApp, context: Context, tracing: Tracing | None) -> None:
        self._app, self._context, self._tracing = app, context, tracing
        self._under_way = set[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a request answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._new_id(scope)
        self._under_way.add(request_id)
        state = scope.setdefault("state", {})
        state["request_id"], state["client"] = request_id, scope["client"][0] if scope["client"] else ""
        answering = _Answering(scope, send)
        if self._tracing is not None:
            self._tracing.begin(scope)
        try:
            await self._answer(scope, receive, answering)
        finally:
            self._under_way.discard(request_id)
            self._note(scope, answering)
            _let_go(state)

    async def _answer(self, scope: Scope, receive: Receive, answering: _Answering) -> None:
        try:
            await self._app(scope, receive, answering)
        except Exception as error:
            scope["state"]["error"] = error
            if not isinstance(error, SdxlTrtError):
                log_failure(error, request_id=scope["state"]["request_id"])
            if answering.status:
                raise  # what was begun is cut off
            await answer(scope["path"], error)(scope, receive, answering)

    def _new_id(self, scope: Scope) -> str:
        """What the client calls it, where nothing that is under way is called so."""
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        own = given.decode() if _SAFE_ID.fullmatch(given) else ""
        return own if own and own not in self._under_way else secrets.token_hex(8)

    def _note(self, scope: Scope, answering: _Answering) -> None:
        state, seconds = scope["state"], time.monotonic() - answering.began
        job, error = state.get("job"), state.get("error")
        self._context.metrics.answered(scope["method"], _route(scope), answering.status)
        if self._tracing is not None:
            self._tracing.end(scope, _route(scope), answering.status)
        if scope["path"] in PROBES:
            return
        more: dict[str, Any] = {"user": state.get("user"), "error": type(error).__name__ if error else None}
        if isinstance(error, SdxlTrtError) and answering.status >= 500:
            more["what"] = error.what
        if job is not None:
            more |= {"pictures": len(job.all), "evaluations": job.progress[0]}
            more["stages"] = {stage: round(spent, 4) for stage, spent in job.stages.items()}
        log(
            "request",
            request_id=state["request_id"],
            client=state["client"],
            method=scope["method"],
            path=scope["path"][:200],
            status=answering.status,
            seconds=round(seconds, 4),
            **{name: value for name, value in more.items() if value is not None},
        )


class _Answering:
    """Sends an answer on, with the request's id in it; knows how far it is."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._id, self._send = scope["state"]["request_id"].encode(), send
        self.began = time.monotonic()
        self.status = 0
        """0: not begun."""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", self._id)]
        await self._send(message)


def _let_go(state: dict[str, Any]) -> None:
    """Pictures and engines go with the last who holds them: not when the collector finds this request's circles."""
    job, error = state.pop("job", None), state.pop("error", None)
    if job is not None and isinstance(error, SdxlTrtError):
        error.__traceback__ = None


def _route(scope: Scope) -> str:
    """The path as it was declared, of which there are few."""
    return str(getattr(scope.get("route"), "path", "other"))
