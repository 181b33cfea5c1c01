"""`CudaDevice` over a driver that records its calls: what is copied, kept, released and refused."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from recording_driver import Misuse, RecordingDriver

from sdxl_trt.errors import FlavourUnavailable, GpuLost, OutOfMemory, RunError
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.cuda.arenas import SPARE
from sdxl_trt.runtime.cuda.device import DOWNLOAD_BLOCK, DOWNLOAD_BLOCKS, UPLOAD_BLOCK, UPLOAD_BLOCKS

CODES = RecordingDriver.CUresult


@pytest.fixture(params=[False, True], ids=["prompt", "late"])
def driver(request: pytest.FixtureRequest) -> RecordingDriver:
    return RecordingDriver(late=request.param)


@pytest.fixture
def device(driver: RecordingDriver) -> CudaDevice:
    return CudaDevice(driver=driver)


def filled(device: CudaDevice, array: np.ndarray, stream: Any) -> Any:
    buffer = device.allocate(array.shape, array.dtype)
    device.upload(buffer, array, stream)
    return buffer


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32])
@pytest.mark.parametrize("shape", [(), (1,), (3, 4, 5)])
def test_what_goes_up_comes_down(device: CudaDevice, shape: tuple[int, ...], dtype: Any) -> None:
    stream = device.stream()
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    got = device.download(filled(device, array, stream), stream)
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)


def test_arrays_longer_than_the_rings(device: CudaDevice) -> None:
    stream = device.stream()
    size = max(UPLOAD_BLOCK * UPLOAD_BLOCKS, DOWNLOAD_BLOCK * DOWNLOAD_BLOCKS) + 12345
    array = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    np.testing.assert_array_equal(device.download(filled(device, array, stream), stream), array)


def test_arrays_that_are_not_contiguous(device: CudaDevice) -> None:
    stream = device.stream()
    array = np.arange(24, dtype=np.float32).reshape(4, 6).T[::2]
    np.testing.assert_array_equal(device.download(filled(device, array, stream), stream), array)


def test_new_memory_is_zero(device: CudaDevice) -> None:
    assert not device.download(device.allocate((5, 7), np.float16), device.stream()).any()


def test_an_array_may_be_changed_after_its_upload(device: CudaDevice) -> None:
    stream, array = device.stream(), np.ones((2, 3), np.float32)
    buffer = filled(device, array, stream)
    array[:] = np.nan
    np.testing.assert_array_equal(device.download(buffer, stream), np.ones((2, 3)))


def test_views_are_by_address(device: CudaDevice) -> None:
    stream, array = device.stream(), np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    buffer = filled(device, array, stream)
    for key in (0, 3, -1, slice(2), slice(1, 3), slice(0, 99)):
        view = buffer[key]
        assert view.shape == array[key].shape
        np.testing.assert_array_equal(device.download(view, stream), array[key])
    device.upload(buffer[1][2], np.array([7, 8], np.float32), stream)
    array[1, 2] = 7, 8
    np.testing.assert_array_equal(device.download(buffer, stream), array)
    for key in (4, -5):
        with pytest.raises(IndexError):
            buffer[key]
    with pytest.raises(ValueError, match="contiguous"):
        buffer[::2]


def test_a_copy_neither_broadcasts_nor_casts(device: CudaDevice) -> None:
    stream, buffer = device.stream(), device.allocate((2, 3), np.float32)
    for array in (np.zeros(3, np.float32), np.zeros((1, 3), np.float32)):
        with pytest.raises(ValueError, match="cannot copy"):
            device.upload(buffer, array, stream)
    with pytest.raises(TypeError, match="cast"):
        device.upload(buffer, np.zeros((2, 3)), stream)
    with pytest.raises(ValueError, match="cannot copy"):
        device.copy(buffer[0], buffer, stream)


def test_recorded_work_runs_when_it_is_launched(device: CudaDevice, driver: RecordingDriver) -> None:
    stream = device.stream()
    source, target = device.allocate((3,), np.float32), device.allocate((3,), np.float32)
    launch = device.capture(lambda stream: device.copy(source, target, stream), stream)
    for value in (1, 2):
        device.upload(source, np.full(3, value, np.float32), stream)
        np.testing.assert_array_equal(device.download(target, stream), np.full(3, value - 1))
        launch(stream)
        np.testing.assert_array_equal(device.download(target, stream), np.full(3, value))
    assert driver.calls["cuGraphInstantiate"] == driver.calls["cuGraphUpload"] == 1
    assert driver.calls["cuGraphLaunch"] == 2
    assert driver.live["graph"] == 0


def test_a_recording_that_fails_leaves_nothing(device: CudaDevice, driver: RecordingDriver) -> None:
    stream = device.stream()

    def fail(_: Any) -> None:
        raise RunError("no")

    with pytest.raises(RunError, match="no"):
        device.capture(fail, stream)
    with pytest.raises(Misuse, match="cuMemAlloc while a graph is recorded"):
        device.capture(lambda _: device.allocate((1,), np.float32) and None, stream)
    assert driver.live["graph"] == driver.live["executable"] == 0
    assert not device.download(device.allocate((2,), np.float32), stream).any()


def test_a_graph_keeps_what_it_uses(device: CudaDevice, driver: RecordingDriver) -> None:
    stream = device.stream()
    buffers = [filled(device, np.full(3, value, np.float32), stream) for value in (1, 0)]
    target = buffers[1]

    def work(stream: Any, source: Any = buffers[0], target: Any = target) -> None:
        device.copy(source, target, stream)

    launch = device.capture(work, stream)
    del work
    buffers.clear()
    device.allocate((1,), np.float32)
    launch(stream)
    np.testing.assert_array_equal(device.download(target, stream), np.ones(3))


def test_memory_is_released_later_when_the_gpu_is_done_with_it(device: CudaDevice, driver: RecordingDriver) -> None:
    stream = device.stream()
    before = driver.live
    buffer = device.allocate((4, 1000), np.float32)
    view = buffer[1]
    del buffer
    device.allocate((1,), np.float32)
    device.upload(view, np.ones(1000, np.float32), stream)  # the view keeps all of it
    del view
    assert driver.calls["cuMemFree"] == 0
    last = device.allocate((1,), np.float32)  # the driver would say so if a copy still waited for this memory
    assert driver.calls["cuMemFree"] == 2  # with the single number of before
    assert driver.live["device"] == before["device"] + 1
    assert last.pointer in driver._kinds


def test_memory_is_accounted_for(device: CudaDevice) -> None:
    start = device.memory()
    buffer = device.allocate((1000,), np.float32)
    assert device.memory().allocated == start.allocated + 4000
    assert device.memory().free == start.free - 4000
    del buffer
    small = device.allocate((10,), np.float16)
    use = device.memory()
    assert (use.allocated, use.peak) == (start.allocated + small.nbytes, start.allocated + 4000)


def test_closing_releases_everything(driver: RecordingDriver) -> None:
    with CudaDevice(driver=driver) as device:
        stream = device.stream()
        buffer = filled(device, np.ones(5, np.float32), stream)
        launch = device.capture(lambda stream: device.copy(buffer, buffer, stream), stream)
        launch(stream)
        assert driver.contexts == 1
    assert not +driver.live
    assert driver.contexts == 0
    device.close()
    for use in (lambda: device.allocate((1,), np.float32), lambda: launch(stream), device.memory):
        with pytest.raises(GpuLost, match="cannot be used any more"):
            use()


def test_any_thread_may_use_it(device: CudaDevice) -> None:
    stream, got = device.stream(), []
    buffer = filled(device, np.ones(3, np.float32), stream)
    thread = threading.Thread(target=lambda: got.append(device.download(buffer, stream)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(got[0], np.ones(3))


def test_arenas_side_by_side(device: CudaDevice, driver: RecordingDriver) -> None:
    device.arenas.reserve("loop", 5000)
    device.arenas.reserve("side", 3000)
    device.arenas.reserve("side", 2000)
    assert device.arenas.overlap
    assert device.stream() is not device.stream()
    (loop, loop_size), (side, side_size) = device.arenas.block("loop"), device.arenas.block("side")
    assert (loop_size, side_size) == (5000, 3000)
    assert loop.handle != side.handle
    assert device.arenas.block("side")[0] is side
    device.arenas.reserve("side", 4000)  # an engine that was opened later: the earlier ones keep their block
    assert device.arenas.block("side")[1] == 4000
    assert driver.tensor(side.handle, (3000,), np.uint8).size == 3000


def test_arenas_that_do_not_both_fit_are_one_and_nothing_overlaps() -> None:
    device = CudaDevice(driver=RecordingDriver(memory=SPARE + 2**20))
    device.arenas.reserve("loop", 3 * 2**18)
    device.arenas.reserve("side", 2**19)
    assert not device.arenas.overlap
    assert device.arenas.block("loop")[0] is device.arenas.block("side")[0]
    assert device.stream() is device.stream()


def test_too_little_memory_names_what_for_how_much_and_what_is_free() -> None:
    device = CudaDevice(driver=RecordingDriver(memory=10**8))
    buffer = device.allocate((10**7,), np.float32, "tensor state of step")
    with pytest.raises(OutOfMemory) as caught:
        device.allocate((5, 10**7), np.float32, "tensor image of vae_decoder")
    print(caught.value)
    assert "tensor image of vae_decoder [5, 10000000] of float32" in caught.value.what
    assert caught.value.got == "0.06 of 0.10 GB free"
    assert caught.value.expected == "0.20 GB free"
    assert "nvidia-smi" in caught.value.fix
    del buffer


@pytest.mark.parametrize(
    ("function", "status", "expected"),
    [
        ("cuInit", CODES.CUDA_ERROR_NO_DEVICE, "an NVIDIA GPU that this process may use"),
        ("cuDeviceGet", CODES.CUDA_ERROR_INVALID_DEVICE, "the number of a GPU that is here"),
        ("cuDevicePrimaryCtxRetain", CODES.CUDA_ERROR_DEVICE_UNAVAILABLE, "a GPU that no other process holds"),
    ],
)
def test_a_gpu_that_cannot_be_had(function: str, status: Any, expected: str) -> None:
    driver = RecordingDriver()
    driver.fail[function] = status
    with pytest.raises(FlavourUnavailable) as caught:
        CudaDevice(driver=driver)
    assert expected in caught.value.expected
    assert caught.value.got == f"{status.name}: as in {status.name}"
    assert caught.value.fix


def test_a_driver_that_is_too_old() -> None:
    with pytest.raises(FlavourUnavailable, match="too old") as caught:
        CudaDevice(driver=RecordingDriver(version=12080))
    assert caught.value.got == "a driver for CUDA 12.8"
    assert "13.0" in caught.value.expected


@pytest.mark.parametrize("status", [CODES.CUDA_ERROR_UNKNOWN, CODES.CUDA_ERROR_ILLEGAL_ADDRESS])
def test_a_gpu_that_fails_ends_everything_and_says_so(driver: RecordingDriver, status: Any) -> None:
    device = CudaDevice(driver=driver)
    stream = device.stream()
    buffer = filled(device, np.ones(5, np.float32), stream)
    driver.broken = status
    with pytest.raises(GpuLost, match="the GPU failed") as caught:
        device.download(buffer, stream)
    assert status.name in caught.value.got
    with pytest.raises(GpuLost):
        device.upload(buffer, np.ones(5, np.float32), stream)
    device.close()  # without another call of the driver, and without an error


def test_a_gpu_that_no_longer_answers_is_given_up() -> None:
    driver = RecordingDriver(late=True)
    device = CudaDevice(driver=driver, patience=0.05)
    stream = device.stream()
    buffer = filled(device, np.ones(5, np.float32), stream)
    driver.stalled = True
    with pytest.raises(GpuLost, match="does not answer") as caught:
        device.download(buffer, stream)
    assert caught.value.got == "work that is not done after 0.05 seconds"
    device.close()


def test_what_the_driver_refuses_otherwise_is_passed_on(device: CudaDevice, driver: RecordingDriver) -> None:
    stream = device.stream()
    driver.fail["cuGraphInstantiate"] = CODES.CUDA_ERROR_NOT_SUPPORTED
    with pytest.raises(RunError, match="cannot make a recorded step executable") as caught:
        device.capture(lambda stream: None, stream)
    assert not isinstance(caught.value, GpuLost)
    assert driver.live["graph"] == 0


def test_the_recorder_catches_misuse() -> None:
    driver = RecordingDriver(late=True)
    driver.cuCtxSetCurrent("context")
    (_, stream), (_, pinned), (_, memory) = driver.cuStreamCreate(1), driver.cuMemHostAlloc(8, 0), driver.cuMemAlloc(8)
    _, event = driver.cuEventCreate(0)
    driver.cuMemcpyHtoDAsync(memory, pinned, 8, stream)
    driver.cuEventRecord(event, stream)
    driver._things[pinned][3] ^= 1
    with pytest.raises(Misuse, match="before its copy ran"):
        driver.cuEventQuery(event)
    driver.cuMemcpyDtoDAsync(memory, memory, 8, stream)
    driver.cuEventQuery(event)
    driver.cuEventRecord(event, stream)
    driver.cuMemFree(memory)
    with pytest.raises(Misuse, match="no device, or was released"):
        driver.cuEventQuery(event)
    with pytest.raises(Misuse, match="4 bytes at 6 of 8"):
        driver.cuMemcpyHtoDAsync(memory, pinned + 6, 4, stream)
