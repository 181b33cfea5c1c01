"""Bundles that are loaded while the server answers: the first, and others in its place."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from sdxl_trt.errors import SdxlTrtError
from sdxl_trt.runtime.serve.http.errors import HttpError
from sdxl_trt.runtime.serve.http.logs import log, log_failure

LOADING, DONE, FAILED = "loading", "done", "failed"


@dataclass(frozen=True, kw_only=True, eq=False)
class Loading:
    """One of them."""

    number: int
    bundle: str | None
    """Its name, where another than that of the start was asked for."""
    began: float = field(default_factory=time.monotonic)
    ended: Future[float] = field(default_factory=Future)
    """Seconds that it took."""

    def as_dict(self) -> dict[str, Any]:
        """For people to read: keys number, bundle, state, and seconds or error."""
        shown: dict[str, Any] = {"number": self.number, "bundle": self.bundle, "state": LOADING}
        if not self.ended.done():
            return shown
        error = self.ended.exception()
        if error is None:
            return shown | {"state": DONE, "seconds": round(self.ended.result(), 3)}
        told = error.as_dict() if isinstance(error, SdxlTrtError) else {"error": type(error).__name__}
        return shown | {"state": FAILED, "error": told}


class Loader:
    """Loads one at a time, each in a thread of its own.

    Args:
        load: loads a bundle by its name, or that of the start.
    """

    def __init__(self, load: Callable[[str | None], object]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self.last: Loading | None = None
        """Which was asked for last."""

    def start(self, bundle: str | None = None) -> Loading:
        """Begin to load a bundle.

        Raises:
            HttpError: one is being loaded.
        """
        with self._lock:
            last = self.last
            if last is not None and not last.ended.done():
                raise HttpError(
                    409,
                    "a bundle is being loaded",
                    code="conflict",
                    got=f"number {last.number}, for {time.monotonic() - last.began:.0f} s",
                    expected="one at a time",
                    fix="ask again when GET /admin/reload says that it is done",
                )
            loading = self.last = Loading(number=1 if last is None else last.number + 1, bundle=bundle)
        threading.Thread(target=self._run, args=(loading,), name="load", daemon=True).start()
        return loading

    def _run(self, loading: Loading) -> None:
        log("load", number=loading.number, bundle=loading.bundle)
        try:
            self._load(loading.bundle)
        except Exception as error:
            if isinstance(error, SdxlTrtError):
                log("load failed", logging.ERROR, number=loading.number, **error.as_dict())
            else:
                log_failure(error, number=loading.number)
            loading.ended.set_exception(error.with_traceback(None))  # which would hold what was opened
        else:
            seconds = time.monotonic() - loading.began
            log("loaded", number=loading.number, seconds=round(seconds, 3))
            loading.ended.set_result(seconds)
