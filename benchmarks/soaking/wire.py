"""HTTP/1.1 on a bare connection: it can be cut at any byte, and bytes that nobody asked for are seen."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

HOST: Final = "127.0.0.1"
MOST: Final = 64 * 2**20
"""Bytes of an answer that are read at most."""


class BadAnswer(Exception):
    """What came is no HTTP, or ends before its end."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request over HTTP."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def encode(self) -> bytes:
        """All bytes of it."""
        headers = {"Host": HOST, "Connection": "close", "Content-Length": str(len(self.body)), **self.headers}
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


@dataclass(frozen=True, kw_only=True)
class Head:
    """The beginning of an answer; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A whole answer."""

    head: Head
    body: bytes
    surplus: bytes = b""
    """What came after its end."""

    @property
    def status(self) -> int:
        """Of HTTP."""
        return self.head.status

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: it is none.
        """
        return json.loads(self.body)


class Wire:
    """One connection, for one request. Use `connect`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            OSError: the other side is gone.
        """
        self._writer.write(data)
        await self._writer.drain()

    async def head(self) -> Head:
        """Wait for the beginning of an answer.

        Raises:
            BadAnswer: something else came, or the end.
        """
        try:
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            pairs = (line.partition(":") for line in lines[1:] if line)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            return Head(status=int(lines[0].split()[1]), headers=headers)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError) as error:
            raise BadAnswer(f"no answer: {error}") from error

    async def parts(self, head: Head) -> AsyncIterator[bytes]:
        """The body as it comes.

        Raises:
            BadAnswer: it ends before its end, or is too large.
        """
        try:
            if head.headers.get("transfer-encoding") == "chunked":
                while size := int(await self._reader.readuntil(b"\r\n"), 16):
                    _check(size)
                    yield (await self._reader.readexactly(size + 2))[:-2]
                await self._reader.readexactly(2)
            elif "content-length" in head.headers:
                _check(size := int(head.headers["content-length"]))
                yield await self._reader.readexactly(size)
            else:
                yield await self._reader.read(MOST)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise BadAnswer(f"an answer without its end: {error}") from error

    async def answer(self) -> Answer:
        """Wait for a whole answer, and for the end of the connection.

        Raises:
            BadAnswer, OSError: it does not come whole.
        """
        head = await self.head()
        parts, length = list[bytes](), 0
        async for part in self.parts(head):
            parts.append(part)
            _check(length := length + len(part))
        return Answer(head=head, body=b"".join(parts), surplus=await self._reader.read(MOST))

    def cut(self, *, rudely: bool) -> None:
        """End the connection at once; rudely: by a reset, where politeness would say that nothing more is sent."""
        if rudely:
            endpoint: socket.socket = self._writer.get_extra_info("socket")
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def close(self) -> None:
        """End the connection."""
        self._writer.close()


async def connect(port: int) -> Wire:
    """A connection to a server on this machine.

    Raises:
        OSError: nobody answers.
    """
    return Wire(*await asyncio.open_connection(HOST, port))


async def ask(port: int, call: Call) -> Answer:
    """A request, and its whole answer.

    Raises:
        BadAnswer, OSError: it does not come whole.
    """
    wire = await connect(port)
    try:
        await wire.send(call.encode())
        return await wire.answer()
    finally:
        wire.close()


def _check(length: int) -> None:
    if length > MOST:
        raise BadAnswer(f"an answer of more than {MOST} bytes")
