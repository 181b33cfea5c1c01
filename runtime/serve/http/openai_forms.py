"""Forms of /v1/images/edits: pictures are parts with a file's name, everything else is text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile

from sdxl_trt.runtime.serve.http.errors import HttpError
from sdxl_trt.runtime.serve.http.openai_models import Edit

_FILES, _FIELDS, _FIELD_BYTES = 8, 100, 2**20
_PICTURES = ("image", "mask")
_LISTS = ("seed", "guidance")


@dataclass(frozen=True, kw_only=True)
class EditForm:
    """A form that was read."""

    fields: Edit
    image: bytes
    mask: bytes | None


async def read_form(http: HttpRequest) -> EditForm:
    """The form that a request brings.

    Raises:
        HttpError: it is none, has no picture, or several.
        RequestValidationError: a field that cannot be used.
    """
    _check_kind(http.headers.get("content-type", "no content type"))
    fields, files = dict[str, Any](), dict[str, bytes]()
    body = await http.body()  # the form is read from it
    async with http.form(max_files=_FILES, max_fields=_FIELDS, max_part_size=_FIELD_BYTES) as form:
        for key, value in form.multi_items():
            name = key.removesuffix("[]")
            if name in _PICTURES:
                files[name] = await _checked_file(name, value, files).read()
            else:
                _take(fields, key, value)
    if "image" not in files:
        raise HttpError(
            400, "image is missing", code="missing_required_parameter", param="image", fix="send a picture as a file"
        )
    _check_end(http.headers["content-type"], body)
    try:
        return EditForm(fields=Edit.model_validate(fields), image=files["image"], mask=files.get("mask"))
    except ValidationError as error:
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]
        raise RequestValidationError(faults) from error


def _check_kind(content_type: str) -> None:
    if not content_type.startswith("multipart/form-data"):
        raise HttpError(
            415,
            "this is no form",
            code="unsupported_media_type",
            got=f"{content_type!r:.80}",
            expected="multipart/form-data, with the picture in a part named image",
            fix="send the picture as a file",
        )


def _check_end(content_type: str, body: bytes) -> None:
    """Refuse a form that was cut short: the reader leaves its last field out, and says nothing."""
    boundary = parse_options_header(content_type)[1][b"boundary"]
    if b"--" + boundary + b"--" not in body:
        raise HttpError(
            400, "the form has no end", code="invalid_value", got=f"{len(body)} bytes", fix="send all of it"
        )


def _take(fields: dict[str, Any], key: str, value: UploadFile | str) -> None:
    """Note a field; lists come as one part for each entry."""
    name = key.removesuffix("[]")
    if name in _LISTS and (name != key or name in fields):
        earlier = fields.get(name, [])
        fields[name] = [*(earlier if isinstance(earlier, list) else [earlier]), value]
    elif key in fields:
        raise HttpError(400, f"{key} stands twice", code="invalid_value", param=key, fix="send it once")
    else:
        fields[key] = value


def _checked_file(name: str, value: UploadFile | str, files: dict[str, bytes]) -> UploadFile:
    if isinstance(value, UploadFile) and name not in files:
        return value
    raise HttpError(
        400,
        f"more than one {name}" if name in files else f"{name} is no file",
        code="invalid_value",
        param=name,
        got="several" if name in files else f"{value!r:.80}",
        expected="one picture, as a part with a file's name: no path or address is ever opened",
        fix=f"send one file named {name}",
    )
