"""No more connections than a process can have, and those that do nothing are closed.

uvicorn waits for a first request, and for readers, as long as it takes.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as Protocol
else:
    Protocol = AutoHTTPProtocol

READ_SECONDS = 120.0
"""What was sent must have been read so long after the connection was to be closed."""
REFUSED_SECONDS = 1.0
"""For a client that is one too many to read that; closed at once, what it sends would have the answer dropped."""


def guarded(idle_seconds: float, most: int) -> type[asyncio.Protocol]:
    """uvicorn's protocol, with limits on waiting and on the number of connections.

    Args:
        idle_seconds: within which a request's head must have come, the first and every later one.
        most: connections at a time; one more is answered 503 at once, unread.
    """

    class Guarded(Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._refused = len(self.connections) > most
            if self._refused:
                transport.write(_refusal(most))
                self.loop.call_later(REFUSED_SECONDS, transport.close)
            else:
                self._watch()

        def data_received(self, data: bytes) -> None:
            if not self._refused:
                super().data_received(data)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def _watch(self) -> None:
            self.loop.call_later(idle_seconds, self._close_idle, self.cycle)

        def _close_idle(self, last: object) -> None:
            """Close, where no request has begun since then."""
            if self.cycle is last and (last is None or self.cycle.response_complete):
                self.transport.close()
                self.loop.call_later(READ_SECONDS, self.transport.abort)

    return Guarded


def _refusal(most: int) -> bytes:
    """Of a connection, whatever it would have asked for."""
    error = {
        "error": "NotServing",
        "what": "too many connections",
        "got": f"more than {most}",
        "expected": f"at most {most}",
        "fix": "ask again in a second",
    }
    body = json.dumps(error).encode()
    head = f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"retry-after: 1\r\nconnection: close\r\n\r\n" + body
