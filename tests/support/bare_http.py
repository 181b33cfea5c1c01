"""HTTP as it is on the wire, for tests of what no client's library sends."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

GENERATIONS = b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
"""The start of a request, which lacks its length."""


def head_and_body(answer: bytes) -> tuple[int, dict[str, str], Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = body[: int(headers.get("content-length", len(body)))]
    return int(first.split()[1]), headers, json.loads(body) if body.startswith(b"{") else body


def png_file(header: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of these chunks, kinds and data, whatever they say."""
    parts = [(b"IHDR", header), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def png_of(width: int, height: int) -> bytes:
    """A PNG file that says it is so large, and holds almost nothing."""
    return png_file(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), (b"IDAT", zlib.compress(bytes(1000))))


def form(*parts: tuple[str, bytes, str | None], boundary: str = "b") -> bytes:
    lines = []
    for name, data, file in parts:
        more = f'; filename="{file}"' if file else ""
        lines.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + data)
    return b"\r\n".join([*lines, f"--{boundary}--\r\n".encode()])
