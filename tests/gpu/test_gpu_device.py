"""What `CudaDevice` promises, on a real GPU. The recording driver's tests say more; these say that it is true."""

from __future__ import annotations

import numpy as np
import pytest

from sdxl_trt.errors import OutOfMemory
from sdxl_trt.runtime.cuda import CudaDevice

pytestmark = pytest.mark.gpu


def test_what_goes_up_comes_down(gpu: CudaDevice) -> None:
    stream = gpu.stream()
    for shape in ((), (3, 5), (7, 1024, 1024)):
        array = np.random.default_rng(0).standard_normal(shape, np.float32)
        buffer = gpu.allocate(np.shape(array), np.float32)
        assert not gpu.download(buffer, stream).any()
        gpu.upload(buffer, np.asarray(array), stream)
        np.testing.assert_array_equal(gpu.download(buffer, stream), array)


def test_a_recording_of_copies_is_replayed_in_order(gpu: CudaDevice) -> None:
    """Far more uploads than the ring has blocks, each of which must reach the copy behind it."""
    stream, rounds = gpu.stream(), 1000
    source, target = gpu.allocate((64,), np.float32), gpu.allocate((rounds, 64), np.float32)
    launches = [
        gpu.capture(lambda stream, row=target[index]: gpu.copy(source, row, stream), stream) for index in range(rounds)
    ]
    before = gpu.memory().allocated
    for index, launch in enumerate(launches):
        gpu.upload(source, np.full(64, index, np.float32), stream)
        launch(stream)
    np.testing.assert_array_equal(gpu.download(target, stream)[:, 0], np.arange(rounds))
    assert gpu.memory().allocated == before


def test_streams_follow_one_another(gpu: CudaDevice) -> None:
    first, second = gpu.stream(), gpu.stream()
    source, target = gpu.allocate((2**24,), np.float32), gpu.allocate((2**24,), np.float32)
    for value in range(1, 6):
        gpu.upload(source, np.full(2**24, value, np.float32), first)
        gpu.follow(second, first)
        gpu.copy(source, target, second)
        assert (gpu.download(target, second) == value).all()
        gpu.follow(first, second)


def test_too_much_memory_is_refused_and_the_gpu_goes_on(gpu: CudaDevice) -> None:
    total = gpu.memory().total
    with pytest.raises(OutOfMemory) as caught:
        gpu.allocate((total,), np.float32, "tensor of a test")
    print(caught.value)
    assert "tensor of a test" in caught.value.what
    assert not gpu.download(gpu.allocate((4,), np.float32), gpu.stream()).any()


def test_memory_comes_back(gpu: CudaDevice) -> None:
    gpu.allocate((1,), np.float32)
    before = gpu.memory().free
    for _ in range(20):
        gpu.allocate((2**26,), np.float32)
    gpu.allocate((1,), np.float32)
    print(f"free before and after: {before}, {gpu.memory().free}; required: not less by 16 MB")
    assert gpu.memory().free > before - 2**24  # others use the GPU too, a little


def test_what_is_read_behind_an_event_is_what_was_there(gpu: CudaDevice) -> None:
    stream, event = gpu.stream(), gpu.event()
    source, kept = gpu.allocate((2**22,), np.float32), gpu.allocate((2**22,), np.float32)
    for value in range(5):
        gpu.upload(source, np.full(2**22, value, np.float32), stream)
        gpu.copy(source, kept, stream)
        event.record(stream)
        gpu.upload(source, np.full(2**22, -1, np.float32), stream)  # goes on, and is not waited for
        assert (gpu.read(kept, event) == value).all()
        assert event.reached()
