"""Connections that do nothing are closed: uvicorn waits for a first request, and for readers, as long as it takes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as Protocol
else:
    Protocol = AutoHTTPProtocol

READ_SECONDS = 120.0
"""What was sent must have been read so long after the connection was to be closed."""


def guarded(idle_seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, with a limit on waiting.

    Args:
        idle_seconds: within which a request's head must have come, the first and every later one.
    """

    class Guarded(Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

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
