"""What a server says is wrong, as this project's errors."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdxl_trt.decode import DecodeError, loads
from sdxl_trt.errors import SdxlTrtError, TransferError, Unreachable, UsageError
from sdxl_trt.ship.failures import seconds

MOST_FAILURE = 2**16
"""Bytes of a failure's body that are read."""
LONGEST = 120.0
"""Seconds beyond which waiting for a busy server is not worth it."""
CANCELLED = 499
_BUSY = (429, 503)
_STATUSES = {"rate_limit_error": 429, "server_error": 500}
"""Of errors that come as events, by their type."""
_PARTS = re.compile(r"\n  (got|expected|fix): ")


@dataclass(frozen=True, kw_only=True)
class Complaint:
    """What a server said was wrong."""

    status: int
    """Of HTTP."""
    parts: Mapping[str, str]
    """what; and got, expected and fix where they were said."""
    code: str | None = None
    """Its short name for programs."""
    param: str | None = None
    """The field that is wrong, where it is one."""
    request_id: str | None = None
    """The server's name for the request, in its log."""
    retry_after: float | None = None
    """Seconds after which it wants to be asked again."""


class Answered(SdxlTrtError):
    """A server said that it does not do what it was asked for.

    Args:
        complaint: what it said.
    """

    def __init__(self, complaint: Complaint) -> None:
        super().__init__(**complaint.parts)
        self.complaint = complaint


class Refused(Answered, UsageError):
    """The request is wrong, or who asks may not ask for it."""


class Failed(Answered, TransferError):
    """The request was begun and not finished: it was cancelled, came too late, or something broke."""


class Busy(Answered, Unreachable):
    """The server takes nothing now: its queue is full, or it starts, or it ends."""

    @property
    def retry_after(self) -> float | None:
        """Seconds after which it wants to be asked again; None: it does not say."""
        return self.complaint.retry_after


class Attempts:
    """How often one thing is asked for.

    Args:
        retries: attempts after the first.
    """

    def __init__(self, retries: int) -> None:
        self._left = retries

    def pause(self, complaint: Complaint) -> float:
        """Seconds after which to ask again.

        Raises:
            Refused, Failed, Busy: that is of no use, or was done often enough.
        """
        after = complaint.retry_after
        if complaint.status not in _BUSY or after is None or after > LONGEST or not self._left:
            raise error_of(complaint)
        self._left -= 1
        return after * random.uniform(1, 1.5)  # noqa: S311 (so that clients do not go in step; no secret)


def error_of(complaint: Complaint) -> SdxlTrtError:
    """The error to raise."""
    if complaint.status in _BUSY:
        return Busy(complaint)
    return Refused(complaint) if 400 <= complaint.status < CANCELLED else Failed(complaint)


def read_complaint(status: int, headers: Mapping[str, str], body: bytes) -> Complaint:
    """What is wrong, by an answer that is no success.

    Args:
        status: of HTTP.
        headers: of the answer, their names in any case.
        body: its first bytes, at most `MOST_FAILURE`.
    """
    try:
        value = loads(body, max_bytes=MOST_FAILURE)
    except DecodeError:
        value = None
    said = value if isinstance(value, dict) else {}
    error = said.get("error")
    fields = error if isinstance(error, dict) else {}
    retry = headers.get("retry-after")
    return Complaint(
        status=status,
        parts=_parts(fields.get("message")) or _own_parts(said) or _unexpected(status, headers, body),
        code=_text(fields.get("code")),
        param=_text(fields.get("param")),
        request_id=headers.get("x-request-id"),
        retry_after=None if retry is None else seconds(retry),
    )


def read_event(error: Mapping[str, Any], request_id: str | None) -> Complaint:
    """What is wrong, by an event of a stream that had begun.

    Args:
        error: its `error`.
        request_id: of the answer.
    """
    code = _text(error.get("code"))
    status = CANCELLED if code == "cancelled" else _STATUSES.get(str(error.get("type")), 400)
    parts = _parts(error.get("message")) or {"what": "the server failed, and does not say why"}
    return Complaint(status=status, parts=parts, code=code, param=_text(error.get("param")), request_id=request_id)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _parts(message: object) -> dict[str, str]:
    """A message of ours in its parts again; any other is what was said."""
    if not isinstance(message, str) or not message.strip():
        return {}
    what, *rest = _PARTS.split(message.strip())
    return {"what": what} | dict(zip(rest[::2], rest[1::2], strict=True))


def _own_parts(said: Mapping[str, Any]) -> dict[str, str]:
    """An error in this project's own form, as `SdxlTrtError.as_dict` gives it."""
    parts = {name: text for name in ("what", "got", "expected", "fix") if (text := _text(said.get(name)))}
    return parts if "what" in parts else {}


def _unexpected(status: int, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
    """Of an answer that `sdxl-trt serve` does not give."""
    start = " ".join(body[:300].decode("utf-8", "replace").split())
    shown = "".join(sign if sign.isprintable() else "?" for sign in start)
    location = headers.get("location")
    return {
        "what": "what answers is not `sdxl-trt serve`",
        "got": f"status {status}" + (f", to {location!r:.200}" if location else f": {shown}" if shown else ""),
        "expected": "pictures, or an error in JSON",
        "fix": "check the address: redirects are not followed",
    }
