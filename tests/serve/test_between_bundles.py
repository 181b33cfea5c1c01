"""Requests that come just as bundles change, or the service ends: the new one serves them, or they are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from served import open_service, wait_until

from sdxl_trt.runtime.request import Request
from sdxl_trt.runtime.serve.job import Terms
from sdxl_trt.runtime.serve.limits import NotServing

QUICK = Request(prompt="a red circle", size=(64, 64), steps=1, seed=7)


def test_a_request_that_finds_its_bundle_closed_goes_to_the_next(
    demo_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = open_service(demo_bundle)
    (old,) = service.room.workers
    draft = old.pipeline.draft

    def drafted(*arguments: object) -> object:
        service.load(demo_bundle)
        wait_until(lambda: old.join(0))
        return draft(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(old.pipeline, "draft", drafted)
    job = service.submit(QUICK, Terms())
    assert len(job.result.result(30).images) == 1
    assert job.drafts[0].expert is service.room.workers[0].pipeline.experts[0]
    assert service.drain(10)


def test_a_service_that_has_ended_says_so(demo_bundle: Path) -> None:
    service = open_service(demo_bundle)
    assert service.drain(10)
    with pytest.raises(NotServing, match="draining"):
        service.submit(QUICK, Terms())
