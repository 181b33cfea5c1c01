"""The service on `CudaDevice`: all is real but the driver, and where the work is done (see test_cuda_pipeline.py)."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from recording_driver import RecordingDriver
from served import Counting, wait_until
from shim_onnxruntime import Shim

from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.loading import load
from sdxl_trt.runtime.request import Request
from sdxl_trt.runtime.serve.job import Cancelled, Terms
from sdxl_trt.runtime.serve.limits import Limits
from sdxl_trt.runtime.serve.service import Service, Setup

ASKED = [
    Request(prompt="a red circle", steps=4, seed=3, size=(64, 64)),
    Request(prompt="a blue star", steps=9, seed=(4, 5), size=(64, 64), sampler="euler_a", guidance_end=0.5),
    Request(prompt="a red circle", steps=3, seed=6, size=(64, 72), guidance=1.0),
]


@pytest.mark.parametrize("late", [False, True], ids=["prompt", "late"])
def test_requests_share_recorded_steps(
    demo_bundle: Path, cuda_bundle: Path, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Pipeline.load(demo_bundle, threads=1) as processor:
        wanted = [processor.run(request) for request in ASKED]
    driver = RecordingDriver(late=late)
    monkeypatch.setitem(sys.modules, "onnxruntime", Shim(driver))
    threads = set[int]()

    def opened(bundle: Path, _device: str) -> Pipeline:
        device = CudaDevice(driver=driver)
        enter = device._context.enter

        def entered() -> None:
            threads.add(threading.get_ident())
            enter()

        device._context.enter = entered  # type: ignore[method-assign]
        return Pipeline(load(bundle, threads=1, device=device), device)

    counting = Counting()
    service = Service(Setup(open=opened, devices=("cuda",), sizes=[(64, 64)]), Limits(), counting)
    service.load(cuda_bundle)
    threads.clear()
    seen = list[int]()
    terms = Terms(partials=1, on_partial=lambda _picture, number, _image: seen.append(number))
    jobs = [service.submit(request, terms) for request in ASKED]
    for job, expected in zip(jobs, wanted, strict=True):
        got = job.result.result(120)
        error = np.abs(got.latents - expected.latents).max()
        print(f"latents: measured {error:.2e}, required < 1e-4 (rows are filled up)")
        assert error < 1e-4
    assert seen == [0] * 4
    long = service.submit(Request(prompt="a red circle", steps=100, size=(64, 64)), Terms())
    wait_until(lambda: long.progress[0] > 2)
    service.cancel(long)
    with pytest.raises(Cancelled):
        long.result.result(10)
    assert service.drain(30)
    assert len(threads) == 1, "a GPU is for one thread at a time"
    assert not +driver.live
    assert max(pictures for pictures, _, _ in counting.steps) > 1
