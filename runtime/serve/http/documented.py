"""Answers that tell errors, for the description of the APIs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

_STATUSES = {
    400: "The request is wrong; says what, and how to mend it.",
    401: "No API key, or a wrong one.",
    403: "Not with this key, or not from there.",
    404: "Nothing of that name.",
    408: "The body did not come in time.",
    409: "Something else has to end first.",
    413: "The body is too large.",
    415: "The body is of another kind.",
    422: "The request is wrong, as A1111 says it.",
    429: "The queue is full; Retry-After says when to come again.",
    499: "It was taken back, by an operator or because its client went away.",
    500: "The server failed; its log has the request's id.",
    503: "The server starts, ends, or has no device left.",
    504: "The deadline passed.",
}


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid")


class OpenAIFault(_Told):
    """What is wrong, in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIError(_Told):
    """An error as OpenAI's API has it."""

    error: OpenAIFault


class A1111Error(_Told):
    """An error as A1111's API has it."""

    error: str
    detail: str
    body: str
    errors: str


class OperationsError(_Told):
    """An error as operators get it."""

    error: str
    what: str
    got: str
    expected: str
    fix: str


def documented(shape: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Answers by status, but those of probes, which say what state the service is in.

    Args:
        shape: of their bodies.
    """
    answers: dict[int | str, dict[str, Any]] = {
        status: {"description": text, "model": shape} for status, text in _STATUSES.items()
    }
    return answers | ({503: {"description": _STATUSES[503]}} if shape is OperationsError else {})
