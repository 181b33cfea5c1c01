"""The log: one JSON object a line on standard error. Prompts are not in it, nor what else clients sent in a body."""

from __future__ import annotations

import datetime
import json
import logging
import traceback
from typing import Any

_LOGGER = logging.getLogger("sdxl_trt.serve")

CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "sdxl_trt.runtime.serve.http.logs.JsonLines"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {"uvicorn": {"level": "INFO"}, _LOGGER.name: {"level": "INFO"}},
}
"""Of Python's logging: the server's own lines, uvicorn's, and warnings of any library."""


class JsonLines(logging.Formatter):
    """A record as one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Keys time, level and event, then those of the event; of an exception its kind and where it was."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "fields", {"logger": record.name})
        if record.exc_info and record.exc_info[1] is not None:
            line |= _trace(record.exc_info[1])
        return json.dumps(line)


def log(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Write a line.

    Args:
        event: what happened, in a word or two.
        level: of `logging`.
        fields: what is known of it, as JSON has it.
    """
    _LOGGER.log(level, event, extra={"fields": fields})


def log_failure(error: BaseException, **fields: Any) -> None:
    """Write down an error that nobody foresaw: its kind and where it was. Its text may hold what a client sent."""
    log("failure", logging.ERROR, **fields, **_trace(error))


def _trace(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    return {"error": type(error).__name__, "trace": [f"{each.filename}:{each.lineno} {each.name}" for each in frames]}
