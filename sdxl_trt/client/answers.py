"""What a server's answers say: JSON, of which nothing is believed before it is checked."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sdxl_trt.client.pictures import Partial, Picture, Pictures
from sdxl_trt.decode import DecodeError, decode, loads
from sdxl_trt.errors import TransferError

T = TypeVar("T")

MOST_ANSWER = 2**29
"""Bytes of an answer that are taken."""
_BEGINNINGS = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff", "webp": b"RIFF"}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came."""

    status: int
    """Of HTTP."""
    headers: Mapping[str, str]
    """Their names in any case."""
    body: bytes = b""
    """Empty where it comes as a stream."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One that a server has."""

    id: str
    created: int
    """Seconds since 1970: when its bundle was built."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A request that waits or runs on a server."""

    id: str
    client: str
    priority: int
    stage: str
    """'queued', 'encoding', 'denoising' or 'decoding'."""
    pictures: int
    evaluations: int
    """That are done."""
    of: int
    """Evaluations in all."""
    seconds: float
    """Since it came."""


@dataclass(frozen=True, kw_only=True)
class Queue:
    """What a server has to do."""

    state: str
    """'starting', 'ready', 'draining' or 'failed'."""
    seconds_left: float
    """Until all of it should be done."""
    requests: tuple[Waiting, ...]
    """The oldest first."""


def read_pictures(answer: Answer) -> Pictures:
    """Pictures that were asked for.

    Raises:
        TransferError: the answer is none of `sdxl-trt serve`.
    """
    value = parse_object(answer.body)
    shared = {"output_format": value.get("output_format")}
    items = [read_picture(each | shared | {"image_index": i}) for i, each in enumerate(_list(value, "data"))]
    if not items:
        raise _unreadable("no pictures")
    return Pictures(items=items, request_id=answer.headers.get("x-request-id"))


def read_picture(fields: Mapping[str, Any]) -> Picture:
    """One picture of an answer, or of an event.

    Raises:
        TransferError: it is none.
    """
    return Picture(**_file(fields), seed=_number(fields, "seed"))


def read_partial(fields: Mapping[str, Any]) -> Partial:
    """A partial picture of an event.

    Raises:
        TransferError: it is none.
    """
    return Partial(**_file(fields), number=_number(fields, "partial_image_index"))


def read_models(answer: Answer) -> list[Model]:
    """Models that there are.

    Raises:
        TransferError: the answer is none of `sdxl-trt serve`.
    """
    return [_read(Model, each) for each in _list(parse_object(answer.body), "data")]


def read_queue(answer: Answer) -> Queue:
    """What waits and runs.

    Raises:
        TransferError: the answer is none of `sdxl-trt serve`.
    """
    value = parse_object(answer.body)
    requests = [_known(Waiting, each) for each in _list(value, "requests")]
    return _read(Queue, value | {"requests": requests})


def parse_object(text: bytes) -> dict[str, Any]:
    """JSON that is an object.

    Raises:
        TransferError: it is none.
    """
    try:
        value = loads(text, max_bytes=MOST_ANSWER)
    except DecodeError as error:
        raise _unreadable(str(error)) from error
    if not isinstance(value, dict):
        raise _unreadable("JSON that is no object")
    return value


def _file(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a `PictureFile`."""
    kind, encoded = fields.get("output_format"), fields.get("b64_json")
    if not isinstance(kind, str) or kind not in _BEGINNINGS or not isinstance(encoded, str):
        raise _unreadable("no b64_json, or no output_format of png, jpeg or webp")
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise _unreadable(f"b64_json that is no base64: {error}") from error
    if not data.startswith(_BEGINNINGS[kind]):
        raise _unreadable(f"b64_json that is no {kind} file")
    return {"data": data, "format": kind, "index": _number(fields, "image_index")}


def _number(fields: Mapping[str, Any], name: str) -> int:
    number = fields.get(name)
    if type(number) is not int:  # True is none here
        raise _unreadable(f"no number {name!r}")
    return number


def _list(value: Mapping[str, Any], name: str) -> Sequence[dict[str, Any]]:
    items = value.get(name)
    if not isinstance(items, list) or not all(isinstance(each, dict) for each in items):
        raise _unreadable(f"no list of objects {name!r}")
    return items


def _read(kind: type[T], value: Mapping[str, Any]) -> T:
    try:
        return decode(kind, _known(kind, value))
    except DecodeError as error:
        raise _unreadable(str(error)) from error


def _known(kind: Any, value: Mapping[str, Any]) -> dict[str, Any]:
    """Its fields alone: a later server may say more."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: each for name, each in value.items() if name in names}


def _unreadable(got: str) -> TransferError:
    return TransferError(
        "the server's answer cannot be read",
        got=f"{got:.200}",
        expected="an answer of `sdxl-trt serve`",
        fix="check the address, and that client and server are of the same version",
    )
