"""Errors as answers: each API's clients find what is wrong where they look for it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sdxl_trt.errors import ImageError, SdxlTrtError, UnsupportedSize
from sdxl_trt.runtime.serve.http.errors import HttpError, status_of
from sdxl_trt.runtime.serve.http.openai_models import Edit
from sdxl_trt.runtime.serve.job import DeadlinePassed
from sdxl_trt.runtime.serve.limits import Busy, NotServing

OPENAI, A1111 = "/v1", "/sdapi"
"""What paths of these APIs start with."""
AGAIN_SECONDS = 5
"""After which to ask a service again that takes nothing now."""

_SETTINGS = set(Edit.model_fields) | {"image", "mask"}
_UNKNOWN = SdxlTrtError(
    "the server failed", got="an error that nobody foresaw", fix="see its log, which has this request's id"
)
_CLOSING = (408, 413)
"""What is left of such a body is not read."""


def answer(path: str, error: BaseException) -> JSONResponse:
    """The answer that tells an error.

    Args:
        path: that was asked for, which says whose shape the body has.
        error: what ended the request.
    """
    status = status_of(error)
    if path.startswith(OPENAI):
        body: dict[str, Any] = {"error": openai_error(told(error), status)}
    elif path.startswith(A1111):
        text = str(told(error))
        body = {"error": type(told(error)).__name__, "detail": text, "body": "", "errors": text}
    else:
        body = told(error).as_dict()
    return JSONResponse(body, status, _headers(error, status))


def told(error: BaseException) -> SdxlTrtError:
    """What clients are told of an error: nothing of one that nobody foresaw."""
    return error if isinstance(error, SdxlTrtError) else _UNKNOWN


def openai_error(error: SdxlTrtError, status: int) -> dict[str, Any]:
    """An error as OpenAI's API has it."""
    kind = "rate_limit_error" if status == 429 else "server_error" if status >= 500 else "invalid_request_error"
    code = error.code if isinstance(error, HttpError) else _snake(type(error).__name__)
    return {"message": str(error), "type": kind, "param": _param(error), "code": code}


def refusal(error: RequestValidationError, path: str) -> HttpError:
    """What is wrong with a request's fields, by their names."""
    faults: Sequence[Any] = error.errors()
    names = [_name(fault) for fault in faults]
    fault, name = faults[0], names[0]
    status = 422 if path.startswith(A1111) else 400
    unknown = [each for each, other in zip(names, faults, strict=True) if other["type"] == "extra_forbidden"]
    if unknown:
        return HttpError(
            status,
            f"unknown field {', '.join(unknown)}",
            code="unknown_parameter",
            param=unknown[0],
            expected="fields that this server knows: nothing is ignored",
            fix="leave it out, or see /openapi.json",
        )
    missing = fault["type"] == "missing"
    return HttpError(
        status,
        f"{name} is missing" if missing else f"{name} cannot be used",
        code="missing_required_parameter" if missing else "invalid_value",
        param=name if fault["loc"][1:] else None,
        got="" if missing else _short(fault.get("input")),
        expected=fault["msg"],
        fix="see /openapi.json",
    )


def http_fault(error: HTTPException) -> HttpError:
    """What the framework refuses: paths and methods that are not there, and forms that cannot be read."""
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    return HttpError(error.status_code, str(error.detail), code=code, fix="see /openapi.json")


def _headers(error: BaseException, status: int) -> dict[str, str]:
    headers = dict[str, str]()
    if isinstance(error, Busy):
        headers["Retry-After"] = str(math.ceil(error.seconds))
    elif isinstance(error, NotServing):
        headers["Retry-After"] = str(AGAIN_SECONDS)
    elif isinstance(error, DeadlinePassed):
        headers["X-Should-Retry"] = "false"  # as OpenAI's clients read it: they would ask for the same once more
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in _CLOSING:
        headers["Connection"] = "close"
    return headers


def _param(error: SdxlTrtError) -> str | None:
    """The setting that is wrong: errors about one name it among their first words."""
    if isinstance(error, HttpError):
        return error.param
    if isinstance(error, UnsupportedSize):
        return "size"
    named = next((word for word in error.what.split()[:3] if word in _SETTINGS), None)
    return "image" if named is None and isinstance(error, ImageError) else named


def _name(fault: Any) -> str:
    """Of the field that is wrong; what is below it are kinds that it could have been of, unless it is a field too."""
    parts = fault["loc"][1:]
    return ".".join(map(str, parts if fault["type"] == "extra_forbidden" else parts[:1])) or "the body"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
