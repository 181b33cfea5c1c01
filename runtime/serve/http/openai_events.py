"""Server-sent events of OpenAI's images API (WHATWG HTML, "Server-sent events")."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdxl_trt.runtime.serve.http.errors import status_of
from sdxl_trt.runtime.serve.http.shapes import openai_error, told

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True, eq=False)
class Partial:
    """What a picture looks like so far."""

    index: int
    """Of the picture."""
    number: int
    """Of its partial pictures, from 0."""
    image: Image


class Partials:
    """Partial pictures, from the service's threads to the handler that waits for them. Made in the event loop."""

    def __init__(self) -> None:
        self._queue = asyncio.Queue[Partial | None]()
        self._loop = asyncio.get_running_loop()

    def put(self, index: int, number: int, image: Image) -> None:
        """One more, from any thread."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, Partial(index=index, number=number, image=image))

    def end(self) -> None:
        """That was the last."""
        self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Partial]:
        while (partial := await self._queue.get()) is not None:
            yield partial


def as_event(kind: str, fields: dict[str, Any]) -> bytes:
    """An event.

    Args:
        kind: its type.
        fields: of its data, beside the type.
    """
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | fields)}\n\n".encode()


def error_event(error: BaseException) -> bytes:
    """The event that tells what went wrong once an answer was begun."""
    return as_event("error", {"error": openai_error(told(error), status_of(error))})
