"""The demo model from a prompt to pixels on `CudaDevice`: all is real but the driver, and where the work is done.

Text encoders, step and VAE are onnxruntime's CPU sessions on the streams of the recording driver.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from recording_driver import RecordingDriver
from shim_onnxruntime import Shim

from sdxl_trt.errors import FlavourUnavailable, NoTargetForHost, UsageError
from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.expert import LOOPS
from sdxl_trt.runtime.host import open_device
from sdxl_trt.runtime.loading import load
from sdxl_trt.runtime.steps import Step
from sdxl_trt.runtime.trt import LIBRARIES


@pytest.mark.parametrize("late", [False, True], ids=["prompt", "late"])
def test_the_same_picture_as_on_the_processor(
    demo_bundle: Path, cuda_bundle: Path, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"steps": 4, "seed": 3, "size": (64, 72), "sampler": "euler_a"}
    wanted = Pipeline.load(demo_bundle, threads=1)("a red circle", **settings)
    driver = RecordingDriver(late=late)
    monkeypatch.setitem(sys.modules, "onnxruntime", Shim(driver))
    device = CudaDevice(driver=driver)
    pipeline = Pipeline(load(cuda_bundle, threads=1, device=device), device)
    got = pipeline("a red circle", **settings)
    error = np.abs(got.latents - wanted.latents).max()
    print(f"latents: measured {error:.2e}, required < 1e-4 (rows are filled up, so products are of another length)")
    assert error < 1e-4
    pixels = [np.asarray(result.images[0], np.int16) for result in (got, wanted)]
    assert np.abs(pixels[0] - pixels[1]).max() <= 1

    before, calls = driver.live, driver.calls["cuMemAlloc"]
    np.testing.assert_array_equal(pipeline("a red circle", **settings).latents, got.latents)
    assert (driver.live, driver.calls["cuMemAlloc"]) == (before, calls)  # warm: nothing is allocated
    device.close()
    assert not +driver.live


def test_an_exception_in_a_callback_ends_the_request(cuda_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that were under way come to their end, and the next request is not touched by them."""
    driver = RecordingDriver(late=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", Shim(driver))
    device = CudaDevice(driver=driver)
    with Pipeline(load(cuda_bundle, threads=1, device=device), device) as pipeline:
        settings = {"seed": (3, 4), "size": (64, 64), "output": "latents"}
        wanted = pipeline("a red circle", steps=3, **settings).latents

        def stop(step: Step) -> None:
            assert step.preview().shape == (8, 8, 3)
            if step.done == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pipeline("a blue star", steps=9, callback=stop, **settings)
        np.testing.assert_array_equal(pipeline("a red circle", steps=3, **settings).latents, wanted)


def test_recordings_of_the_last_sizes_are_kept(cuda_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = RecordingDriver()
    shim = Shim(driver)
    monkeypatch.setitem(sys.modules, "onnxruntime", shim)
    device = CudaDevice(driver=driver)
    pipeline = Pipeline(load(cuda_bundle, threads=1, device=device), device)

    def draw(*widths: int) -> tuple[int, int]:
        for width in widths:
            pipeline("a red circle", steps=2, seed=3, size=(width, 64), output="latents")
        return len({number for number, _ in shim.runs}), driver.live["device"]

    sizes = [64 + 8 * index for index in range(LOOPS)]
    recorded = draw(*sizes)
    assert draw(*sizes, *reversed(sizes)) == recorded
    once_more = draw(256)
    assert once_more[0] == recorded[0] + 1
    assert once_more[1] <= recorded[1] + 15  # one loop for another, which is released with the next allocation
    assert draw(*sizes[:-1])[0] == once_more[0]
    assert draw(sizes[-1])[0] == once_more[0] + 1  # the least recently used had gone


def test_targets_of_a_gpu_host(cuda_bundle: Path, demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU's onnxruntime does not serve a GPU; what is refused, and why, is in the message."""
    device = CudaDevice(driver=RecordingDriver())
    for library in LIBRARIES.values():
        monkeypatch.setitem(sys.modules, library.module, None)
    for bundle, needed in ((demo_bundle, "onnxruntime"), (cuda_bundle, "onnxruntime-cuda")):
        with pytest.raises(NoTargetForHost) as caught:
            load(bundle, device=device)
        assert f"needs {needed} 1" in caught.value.got
        assert "SM 89" in caught.value.expected
        assert "--device" not in caught.value.fix
    with pytest.raises(NoTargetForHost, match="needs onnxruntime-cuda") as caught:
        load(cuda_bundle)
    assert "--device cuda" in caught.value.fix


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CUDA", ""])
def test_a_device_of_another_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="this device cannot be used"):
        open_device(name)


def test_a_device_that_is_not_there_is_an_error(demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never the processor instead."""
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(FlavourUnavailable):
        Pipeline.load(demo_bundle, device="cuda")
