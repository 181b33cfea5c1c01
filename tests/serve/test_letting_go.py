"""A request that is done holds nothing any more: no pictures, and none of the engines of a bundle that was replaced.

The garbage collector is off meanwhile: on a GPU, engines that it has yet to find fill the memory that others need.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Running
from served import wait_until
from serving import serving

from sdxl_trt.runtime.serve.job import Job

BODY = {"prompt": "a red circle", "size": "64x64", "steps": 2, "seed": 7}


@pytest.fixture
def server(demo_bundle: Path) -> Iterator[Running]:
    with serving(demo_bundle) as server:
        gc.collect()
        gc.disable()
        yield server
        gc.enable()


@pytest.fixture
def seen(server: Running, monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Job]]:
    """Every request that the service takes from now on."""
    refs = list[weakref.ref[Job]]()
    service = server.context.service
    submit = service.submit

    def noted(*arguments: object) -> Job:
        job = submit(*arguments)  # type: ignore[arg-type]
        refs.append(weakref.ref(job))
        return job

    monkeypatch.setattr(service, "submit", noted)
    return refs


def test_requests_and_old_engines_go_as_soon_as_they_are_done(server: Running, seen: list[weakref.ref[Job]]) -> None:
    expert = weakref.ref(server.context.service.room.workers[0].pipeline.experts[0])
    whole = server.post("/v1/images/generations", json=BODY)
    streamed = server.post("/v1/images/generations", json=BODY | {"stream": True, "partial_images": 1})
    late = server.post("/v1/images/generations", json=BODY | {"steps": 900, "deadline": 0.2})
    a1111 = server.post("/sdapi/v1/txt2img", json={"prompt": "", "width": 64, "height": 64, "steps": 1})
    too_long = server.post("/v1/images/generations", json=BODY | {"prompt": "circle " * 500})
    assert [each.status_code for each in (whole, streamed, late, a1111, too_long)] == [200, 200, 504, 200, 400]
    assert len(seen) == 5
    server.wait_until_idle()
    wait_until(lambda: not any(ref() for ref in seen))
    room = server.context.service.room
    server.context.service.load(room.bundle)
    wait_until(lambda: all(worker.join(0) for worker in room.workers))
    wait_until(lambda: expert() is None)
