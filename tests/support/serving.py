"""A server over a bundle, for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from running import Running, running
from served import open_service

from sdxl_trt.runtime.serve.http.context import Context, Settings
from sdxl_trt.runtime.serve.http.metrics import Metrics
from sdxl_trt.runtime.serve.limits import Limits


@contextmanager
def serving(bundle: Path, *, queue: int = 256, **settings: Any) -> Iterator[Running]:
    """Real HTTP on 127.0.0.1.

    Args:
        bundle: that it serves.
        queue: requests that wait or run at most.
        settings: of `Settings`.
    """
    metrics = Metrics()
    service = open_service(bundle, observer=metrics, limits=Limits(steps=1000, queue=queue))
    with running(Context(service=service, settings=Settings(**settings), metrics=metrics)) as server:
        yield server
    assert service.drain(20)
