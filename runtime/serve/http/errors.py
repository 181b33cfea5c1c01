"""Errors as HTTP has them: a status, and a body in the shape that the API's clients read."""

from __future__ import annotations

from sdxl_trt.errors import GpuLost, OutOfMemory, SchedulerError, SdxlTrtError, UsageError
from sdxl_trt.runtime.serve.job import Cancelled, DeadlinePassed
from sdxl_trt.runtime.serve.limits import Busy, NotServing

_STATUSES: tuple[tuple[type[SdxlTrtError], int], ...] = (
    (Busy, 429),
    (NotServing, 503),
    (Cancelled, 499),
    (DeadlinePassed, 504),
    (GpuLost, 503),
    (OutOfMemory, 503),
    (SchedulerError, 400),
    (UsageError, 400),
)


class HttpError(UsageError):
    """A request that is refused before it gets to the service.

    Args:
        status: of HTTP, 400 to 499.
        code: a short name for programs.
        param: the field that is wrong, where it is one.
    """

    def __init__(
        self,
        status: int,
        what: str,
        *,
        code: str,
        param: str | None = None,
        got: str = "",
        expected: str = "",
        fix: str = "",
    ) -> None:
        super().__init__(what, got=got, expected=expected, fix=fix)
        self.status, self.code, self.param = status, code, param


def status_of(error: BaseException) -> int:
    """The HTTP status of an error; 500 for what is nobody's fault but ours."""
    if isinstance(error, HttpError):
        return error.status
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
