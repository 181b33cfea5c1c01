"""onnxruntime on a GPU: the order of calls, with the real library's CPU session doing the work on the recording driver.

That the real CUDA provider takes these options is not shown here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as real
import pytest
from recording_driver import RecordingDriver
from shim_onnxruntime import BOTH, Shim
from small_graph import assert_right, make_entry, random_inputs

from sdxl_trt.bundle import BlobStore
from sdxl_trt.errors import FlavourUnavailable, RunError
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.engine import SHAPES, Caller, allocate, record
from sdxl_trt.runtime.ort_cuda import PROVIDER, RECORDINGS, CudaOrtEngine


@pytest.fixture
def device() -> CudaDevice:
    return CudaDevice(driver=RecordingDriver(late=True))


@pytest.fixture
def shim(device: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> Shim:
    shim = Shim(device._context.cu)
    monkeypatch.setitem(sys.modules, "onnxruntime", shim)
    return shim


@pytest.fixture
def engine(tmp_path: Path, device: CudaDevice, shim: Shim) -> CudaOrtEngine:
    store = BlobStore(tmp_path)
    return CudaOrtEngine(store, make_entry(store), "small", device)


def test_runs_are_in_the_order_of_the_callers_stream(engine: CudaOrtEngine, device: CudaDevice, shim: Shim) -> None:
    caller = Caller(engine, device)
    for rows in (4, 2, 4, 3, 2):
        assert_right(caller({"rows": rows}, **random_inputs(rows)), random_inputs(rows))
    assert shim.runs == [
        (number, "1") for number in ("1", "1", "2", "2", "1", "3", "3", "2")
    ]  # the first of each records
    assert shim.driver.calls["cuStreamBeginCapture"] == 0


def test_recordings_are_released_with_their_shapes(engine: CudaOrtEngine, device: CudaDevice, shim: Shim) -> None:
    caller = Caller(engine, device)
    for rows in range(1, SHAPES + 4):
        caller({"rows": rows}, **random_inputs(rows))
    assert shim.released == [1, 2, 3]
    del caller
    device.close()
    assert sorted(shim.released) == list(range(1, SHAPES + 4))


def test_an_engine_makes_so_many_recordings(engine: CudaOrtEngine, device: CudaDevice, shim: Shim) -> None:
    caller = Caller(engine, device)
    for rows in (*range(1, RECORDINGS + 4), RECORDINGS + 3, 1):
        assert_right(caller({"rows": rows}, **random_inputs(rows)), random_inputs(rows))
    numbers = [int(number) for number, _ in shim.runs]
    assert max(numbers) == RECORDINGS
    assert numbers[2 * RECORDINGS :] == [-1] * (2 * 3 + 1 + 2)  # three to prepare and to run, one again, one anew
    assert max(shim.released) <= RECORDINGS


def test_weights_are_accounted_for(tmp_path: Path, device: CudaDevice, shim: Shim) -> None:
    store, before = BlobStore(tmp_path), device.memory().allocated
    entry = make_entry(store)
    engine = CudaOrtEngine(store, entry, "small", device)
    assert device.memory().allocated == before + entry.weights[0].bytes
    engine.close()
    device.allocate((1,), np.float32)
    assert device.memory().allocated == before + 4


def test_options(engine: CudaOrtEngine, shim: Shim) -> None:
    assert shim.options == {
        "device_id": "0",
        "user_compute_stream": str(engine.stream.handle),
        "enable_cuda_graph": "1",
        "use_tf32": "0",
    }


def test_whichever_stream_is_faster(engine: CudaOrtEngine, device: CudaDevice) -> None:
    stream, buffers = device.stream(), allocate(engine, device, {"rows": 2})
    total = device.allocate((2, 3), np.float16)
    inputs = random_inputs(2)
    work = record(engine.bind(buffers), device, stream, lambda s: device.copy(buffers["twice"], total, s))
    for factor in (1, 2, 3):
        scaled = {name: array * np.array(factor, array.dtype) for name, array in inputs.items() if name != "index"}
        for name, array in {**scaled, "index": inputs["index"]}.items():
            device.upload(buffers[name], array, stream)
        work(stream)
        device._context.cu.hurry(engine.stream.handle)  # ahead of the other, if nothing keeps it
        np.testing.assert_array_equal(device.download(buffers["twice"], stream), scaled["half"] * 2)
    np.testing.assert_array_equal(device.download(total, stream), scaled["half"] * 2)


def test_a_run_that_fails_says_what_failed(engine: CudaOrtEngine, device: CudaDevice, shim: Shim) -> None:
    buffers = allocate(engine, device, {"rows": 3})
    binding = engine.bind(buffers)

    def fail(*_: Any) -> None:
        raise RuntimeError("CUDA failure 700")

    shim.driver.launch = fail  # type: ignore[method-assign]
    with pytest.raises(RunError, match="could not run small") as caught:
        binding.enqueue(device.stream())
    assert caught.value.got == "CUDA failure 700"


def test_no_silent_turn_to_the_cpu(tmp_path: Path, device: CudaDevice, shim: Shim) -> None:
    shim.providers = BOTH[1:]
    store = BlobStore(tmp_path)
    with pytest.raises(FlavourUnavailable, match="cannot use the GPU"):
        CudaOrtEngine(store, make_entry(store), "small", device)


@pytest.mark.skipif(PROVIDER in real.get_available_providers(), reason="this onnxruntime has CUDA")
def test_the_real_library_without_cuda_is_refused(tmp_path: Path, device: CudaDevice) -> None:
    store = BlobStore(tmp_path)
    with pytest.raises(FlavourUnavailable, match="cannot use the GPU") as caught:
        CudaOrtEngine(store, make_entry(store), "small", device)
    assert "CPUExecutionProvider" in caught.value.got
    assert "sdxl-trt[ort-cuda]" in caught.value.fix


def test_the_names_are_the_real_ones() -> None:
    """Of the run options: the library has their texts in it. (Of the provider's: they are in onnxruntime-gpu alone.)"""
    (library,) = Path(real.__file__).parent.glob("capi/onnxruntime_pybind11_state*.so")
    content = library.read_bytes()
    for key in (b"gpu_graph_id", b"disable_synchronize_execution_providers", PROVIDER.encode()):
        assert key in content
    for name in (
        "get_providers",
        "io_binding",
        "run_with_iobinding",
        "get_inputs",
        "get_outputs",
        "release_captured_graph",
    ):
        assert hasattr(real.InferenceSession, name)
    assert hasattr(real.RunOptions, "add_run_config_entry")
