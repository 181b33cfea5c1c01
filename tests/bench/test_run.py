"""A whole bench on a GPU that is recorded: all is real but the driver, and where the work is done."""

from __future__ import annotations

import gc
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from recording_driver import RecordingDriver
from shim_onnxruntime import Shim

from sdxl_trt.bench import peers, run
from sdxl_trt.bench.run import Plan, bench, check_batches
from sdxl_trt.errors import RunError, UsageError
from sdxl_trt.progress import silent
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.device import Device
from sdxl_trt.runtime.loading import Loaded, load
from sdxl_trt.runtime.request import Request
from sdxl_trt.spec import Profile

PLAN = Plan(
    device="cuda",
    request=Request(prompt="a red circle", steps=3, size=(64, 64)),
    batches=(1, 2),
    repeats=2,
    threads=1,
    peers=True,
    checkpoint=None,
    compiled=None,
)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> RecordingDriver:
    driver = RecordingDriver(late=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", Shim(driver))
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", None)
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    return driver


def use(monkeypatch: pytest.MonkeyPatch, driver: RecordingDriver, name: str) -> None:
    """Have the bench find a GPU of that name."""

    def open_device(asked: str) -> CudaDevice:
        device = CudaDevice(driver=driver)
        device.name = name
        return device

    monkeypatch.setattr(run, "open_device", open_device)


def uncounted(loaded: Loaded) -> Loaded:
    """Of a bundle that does not say what its engines compute."""
    entries = {name: replace(entry, work=None) for name, entry in loaded.target.engines.items()}
    return replace(loaded, target=replace(loaded.target, engines=entries))


def test_a_gpu_that_is_in_the_catalogue(
    cuda_bundle: Path, driver: RecordingDriver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch, driver, "NVIDIA H200")
    report = bench(PLAN, lambda device: (load(cuda_bundle, threads=1, device=device), cuda_bundle), silent)
    gc.collect()
    assert not +driver.live  # peers find the GPU empty
    assert report.gpu is not None
    assert report.gpu["sm"] == 89
    figures = {(figure.who, figure.what, figure.batch): figure for figure in report.figures}
    assert len(figures["sdxl-trt", "step", 2].samples) == 4
    assert figures["sdxl-trt", "GPU memory allocated, peak", 1].samples[0] > 0
    assert "nvml" in figures["sdxl-trt", "energy per picture", 1].reason
    for who in peers.PEERS:  # on a GPU both are asked for
        assert figures[who, "whole picture", 2].reason == "diffusers is not installed"
    assert report.no_roofline == ""
    assert [path.name for path in report.write(tmp_path)] == ["bench.json", "bench.md", "roofline.svg"]


def test_a_gpu_that_is_not(cuda_bundle: Path, driver: RecordingDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, driver, "Recorder")

    def open_bundle(device: Device) -> tuple[Loaded, Path]:
        return uncounted(load(cuda_bundle, threads=1, device=device)), cuda_bundle

    plan = replace(PLAN, batches=(1,), peers=False)
    report = bench(plan, open_bundle, silent)
    assert "no rates of Recorder" in report.no_roofline
    assert {figure.who for figure in report.figures} == {"sdxl-trt"}
    use(monkeypatch, driver, "NVIDIA H200")
    assert "does not say what its engines compute" in bench(plan, open_bundle, silent).no_roofline


def test_a_gpu_is_left_when_something_fails(driver: RecordingDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, driver, "Recorder")

    def open_bundle(device: Device) -> tuple[Loaded, Path]:
        raise RunError("no engine")

    with pytest.raises(RunError, match="no engine"):
        bench(PLAN, open_bundle, silent)
    assert not +driver.live
    assert driver.contexts == 0


def test_batches() -> None:
    profile = Profile.make(smallest=(64, 64), best=(64, 64), largest=(64, 64), batch=3)
    assert check_batches(None, profile) == (1, 2)
    assert check_batches((3,), profile) == (3,)
    with pytest.raises(UsageError, match="not built for this batch") as caught:
        check_batches((1, 4), profile)
    assert "--batch 3" in caught.value.fix
