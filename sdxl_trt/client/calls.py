"""What a server is asked for, and how each answer is read: pure, the same for both clients."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sdxl_trt.client.answers import Answer, Model, Queue, read_models, read_pictures, read_queue
from sdxl_trt.client.events import Stream
from sdxl_trt.client.inputs import mask_file, picture_file
from sdxl_trt.client.pictures import Pictures
from sdxl_trt.client.settings import EditSettings, Settings, pictures_asked, to_form, to_json
from sdxl_trt.errors import UsageError

if TYPE_CHECKING:
    from sdxl_trt.client.inputs import Source

T_co = TypeVar("T_co", covariant=True)

_ID = re.compile(r"(?!\.+$)[A-Za-z0-9._:-]{1,64}")
"""What servers take as a name of a request."""


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T_co]):
    """A request, and what to make of its answer."""

    method: str
    path: str
    """Below the server's address."""
    read: Callable[[Answer], T_co]
    expected: tuple[int, ...] = (200,)
    """Statuses of answers that are read; any other is an error."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `httpx2.Client.build_request`."""


def generating(prompt: str, settings: Mapping[str, Any]) -> Call[Pictures]:
    """Pictures of a prompt.

    Raises:
        UsageError: a setting that is not known, or cannot be sent.
    """
    fields, name = _fields(prompt, settings, Settings)
    return Call(method="POST", path="v1/images/generations", read=read_pictures, body=_json(fields, name))


def editing(prompt: str, image: Source, mask: Source | None, settings: Mapping[str, Any]) -> Call[Pictures]:
    """Pictures of a prompt and a picture.

    Raises:
        UsageError: a setting that is not known, or cannot be sent.
        ImageError: the picture or the mask cannot be read.
    """
    fields, name = _fields(prompt, settings, EditSettings)
    return Call(method="POST", path="v1/images/edits", read=read_pictures, body=_form(fields, name, image, mask))


def streaming(
    prompt: str, image: Source | None, mask: Source | None, partial_images: int, settings: Mapping[str, Any]
) -> Call[Stream]:
    """The same as a stream of events.

    Raises:
        UsageError, ImageError: as of the others.
    """
    if image is None:
        if mask is not None:
            raise UsageError("mask needs image", got="none", expected="image too", fix="image=…, or leave mask out")
        fields, name = _fields(prompt, settings, Settings)
    else:
        fields, name = _fields(prompt, settings, EditSettings)
    fields |= {"stream": True, "partial_images": partial_images}
    pictures = pictures_asked(fields)
    return Call(
        method="POST",
        path="v1/images/generations" if image is None else "v1/images/edits",
        read=lambda answer: Stream(pictures, answer.headers.get("x-request-id")),
        body=_json(fields, name) if image is None else _form(fields, name, image, mask),
    )


def cancelling(request_id: str) -> Call[None]:
    """A request taken back.

    Raises:
        UsageError: no request can be called so.
    """
    return Call(method="DELETE", path=f"admin/requests/{_checked_id(request_id)}", read=lambda _: None)


MODELS: Call[list[Model]] = Call(method="GET", path="v1/models", read=read_models)
QUEUE: Call[Queue] = Call(method="GET", path="admin/queue", read=read_queue)
READY: Call[bool] = Call(method="GET", path="readyz", read=lambda answer: answer.status == 200, expected=(200, 503))


def _fields(prompt: str, settings: Mapping[str, Any], known: type[Settings]) -> tuple[dict[str, Any], dict[str, str]]:
    """Fields of a body, and headers."""
    fields = to_json(prompt, settings, known)
    request_id = fields.pop("request_id", None)
    return fields, {} if request_id is None else {"X-Request-Id": _checked_id(request_id)}


def _json(fields: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    content = json.dumps(fields, ensure_ascii=False).encode()
    return {"content": content, "headers": {**headers, "Content-Type": "application/json"}}


def _form(fields: Mapping[str, Any], headers: Mapping[str, str], image: Source, mask: Source | None) -> dict[str, Any]:
    files = {"image": ("image", picture_file(image))}
    if mask is not None:
        files["mask"] = ("mask", mask_file(mask))
    return {"data": to_form(fields), "files": files, "headers": headers}


def _checked_id(request_id: str) -> str:
    if not _ID.fullmatch(request_id):
        raise UsageError(
            "no request can be called so",
            got=f"{request_id!r:.80}",
            expected="1 to 64 letters, digits, '.', '_', ':' and '-', not dots alone",
        )
    return request_id
