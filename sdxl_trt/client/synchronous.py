"""The client that waits."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
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


class Client:
    """A server of `sdxl-trt serve`; from any thread.

    Every method raises Unreachable where nobody answers, Busy where the server takes nothing now, Refused where it does
    not do what it is asked for, Failed where it began and did not finish, TransferError where the answer was cut off.

    Args:
        base_url: http://127.0.0.1:8000 or https://host.
        options: see `Server`.

    Raises:
        UsageError: an address or an option that cannot be used.
    """

    def __init__(self, base_url: str, **options: Unpack[Options]) -> None:
        self._server = Server(address=base_url, **options)
        self._http = httpx2.Client(**self._server.options())

    def __enter__(self) -> Client:
        """Connections are kept for the length of the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close all connections."""
        self.close()

    def close(self) -> None:
        """Close all connections: what waits on one is taken back by the server."""
        self._http.close()

    def generate(self, prompt: str, **settings: Unpack[Settings]) -> Pictures:
        """Pictures of a prompt.

        Raises:
            UsageError: a setting that is not known, or cannot be sent.
        """
        return self._ask(calls.generating(prompt, settings))

    def edit(
        self, prompt: str, image: Source, *, mask: Source | None = None, **settings: Unpack[EditSettings]
    ) -> Pictures:
        """Pictures of a prompt and a picture.

        Args:
            prompt: of what is to be seen.
            image: a file, its bytes or a Pillow image to start from.
            mask: the same; what is transparent in it is painted anew, or where nothing is, what is white.
            settings: the others.

        Raises:
            UsageError: a setting that is not known, or cannot be sent; or a picture that cannot be read.
        """
        return self._ask(calls.editing(prompt, image, mask, settings))

    def stream(
        self,
        prompt: str,
        *,
        image: Source | None = None,
        mask: Source | None = None,
        partial_images: int = 3,
        **settings: Unpack[EditSettings],
    ) -> Generator[Event]:
        """Pictures on their way, and each when it is done. To close the generator is to take the request back.

        Args:
            prompt, image, mask, settings: as of `generate` and `edit`.
            partial_images: 0 to 3, evenly spread over the steps of each picture.

        Raises:
            UsageError: as of `generate` and `edit`.
        """
        call = calls.streaming(prompt, image, mask, partial_images, settings)
        with self._opened(call) as reply:
            stream = call.read(Answer(status=reply.status_code, headers=reply.headers))
            for event in httpx2.EventSource(reply, MOST_EVENT):
                seen = stream.read(event.data)
                if seen is not None:
                    yield seen
            stream.check_ended()

    def models(self) -> list[Model]:
        """Models that the server has."""
        return self._ask(calls.MODELS)

    def ready(self) -> bool:
        """Whether it takes requests: it has warmed up, and does not end."""
        return self._ask(calls.READY)

    def queue(self) -> Queue:
        """What it has to do. Where it has API keys, that takes an operator's."""
        return self._ask(calls.QUEUE)

    def cancel(self, request_id: str) -> None:
        """Take a request back, whoever made it. Where the server has API keys, that takes an operator's.

        Raises:
            Refused: none of that id waits or runs.
        """
        self._ask(calls.cancelling(request_id))

    def _ask(self, call: Call[T]) -> T:
        with self._opened(call) as reply:
            body = _read(reply, MOST_ANSWER).whole
            return call.read(Answer(status=reply.status_code, headers=reply.headers, body=body))

    @contextlib.contextmanager
    def _opened(self, call: Call[T]) -> Iterator[httpx2.Response]:
        """An answer whose body was not read; while the server is busy it is asked again."""
        attempts = Attempts(self._server.retries)
        while True:
            request = self._http.build_request(call.method, call.path, **call.body)
            with self._server.asking(), contextlib.closing(self._http.send(request, stream=True)) as reply:
                if reply.status_code in call.expected:
                    yield reply
                    return
                complaint = read_complaint(reply.status_code, reply.headers, _read(reply, MOST_FAILURE).start)
            time.sleep(attempts.pause(complaint))


def _read(reply: httpx2.Response, most: int) -> Body:
    body = Body(most)
    for block in reply.iter_raw():
        if not body.add(block):
            break
    return body
