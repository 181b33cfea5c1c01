"""The client that does not wait: the same on asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar, Unpack

import httpx2

from sdxl_trt.client import calls
from sdxl_trt.client.answers import MOST_ANSWER, Answer, Model, Queue
from sdxl_trt.client.calls import Call
from sdxl_trt.client.events import MOST_EVENT
from sdxl_trt.client.failures import MOST_FAILURE, Attempts, read_complaint
from sdxl_trt.client.pictures import Event, Pictures
from sdxl_trt.client.server import Body, Options, Server
from sdxl_trt.client.settings import EditSettings, Settings

if TYPE_CHECKING:
    from sdxl_trt.client.inputs import Source

T = TypeVar("T")


class AsyncClient:
    """`Client` on asyncio; its methods are the same. To cancel what waits for one is to take its request back.

    Args:
        base_url: http://127.0.0.1:8000 or https://host.
        options: see `Server`.

    Raises:
        UsageError: an address or an option that cannot be used.
    """

    def __init__(self, base_url: str, **options: Unpack[Options]) -> None:
        self._server = Server(address=base_url, **options)
        self._http = httpx2.AsyncClient(**self._server.options())

    async def __aenter__(self) -> AsyncClient:
        """Connections are kept for the length of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections: what waits on one is taken back by the server."""
        await self._http.aclose()

    async def generate(self, prompt: str, **settings: Unpack[Settings]) -> Pictures:
        """As `Client.generate`."""
        return await self._ask(calls.generating(prompt, settings))

    async def edit(
        self, prompt: str, image: Source, *, mask: Source | None = None, **settings: Unpack[EditSettings]
    ) -> Pictures:
        """As `Client.edit`."""
        return await self._ask(await asyncio.to_thread(calls.editing, prompt, image, mask, settings))

    async def stream(
        self,
        prompt: str,
        *,
        image: Source | None = None,
        mask: Source | None = None,
        partial_images: int = 3,
        **settings: Unpack[EditSettings],
    ) -> AsyncGenerator[Event]:
        """As `Client.stream`."""
        call = await asyncio.to_thread(calls.streaming, prompt, image, mask, partial_images, settings)
        async with self._opened(call) as reply:
            stream = call.read(Answer(status=reply.status_code, headers=reply.headers))
            async for event in httpx2.EventSource(reply, MOST_EVENT):
                seen = stream.read(event.data)
                if seen is not None:
                    yield seen
            stream.check_ended()

    async def models(self) -> list[Model]:
        """As `Client.models`."""
        return await self._ask(calls.MODELS)

    async def ready(self) -> bool:
        """As `Client.ready`."""
        return await self._ask(calls.READY)

    async def queue(self) -> Queue:
        """As `Client.queue`."""
        return await self._ask(calls.QUEUE)

    async def cancel(self, request_id: str) -> None:
        """As `Client.cancel`."""
        await self._ask(calls.cancelling(request_id))

    async def _ask(self, call: Call[T]) -> T:
        async with self._opened(call) as reply:
            body = (await _read(reply, MOST_ANSWER)).whole
            return call.read(Answer(status=reply.status_code, headers=reply.headers, body=body))

    @contextlib.asynccontextmanager
    async def _opened(self, call: Call[T]) -> AsyncIterator[httpx2.Response]:
        """An answer whose body was not read; while the server is busy it is asked again."""
        attempts = Attempts(self._server.retries)
        while True:
            request = self._http.build_request(call.method, call.path, **call.body)
            with self._server.asking():
                async with contextlib.aclosing(await self._http.send(request, stream=True)) as reply:
                    if reply.status_code in call.expected:
                        yield reply
                        return
                    body = await _read(reply, MOST_FAILURE)
            await asyncio.sleep(attempts.pause(read_complaint(reply.status_code, reply.headers, body.start)))


async def _read(reply: httpx2.Response, most: int) -> Body:
    body = Body(most)
    async for block in reply.aiter_raw():
        if not body.add(block):
            break
    return body
