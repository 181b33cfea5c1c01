"""Timers of both devices: what lies between marks, in the order of the device's work."""

from __future__ import annotations

import gc
import time

import numpy as np
import pytest
from recording_driver import Misuse, RecordingDriver

from sdxl_trt.errors import GpuLost
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.device import HostDevice


def test_the_hosts_timer_is_its_clock() -> None:
    timer = HostDevice().timer(3)
    for pause in (0.02, 0.05, 0):
        timer.mark(None)
        time.sleep(pause)
    first, second = timer.intervals()
    print(f"measured {first:.3f} and {second:.3f} s, required at least 0.02 and 0.05")
    assert first >= 0.02
    assert second >= 0.05
    assert timer.intervals() == []


@pytest.mark.parametrize("late", [False, True], ids=["prompt", "late"])
def test_a_gpus_timer_counts_the_work_between_marks(late: bool) -> None:
    """The recording driver's clock: a millisecond for each piece of work."""
    driver = RecordingDriver(late=late)
    device = CudaDevice(driver=driver)
    stream, source = device.stream(), device.allocate((4,), np.float32)
    target = device.allocate((4,), np.float32)
    timer = device.timer(4)
    for _ in range(2):  # events are used again
        before = driver.calls.copy()
        for copies in (0, 3, 1, 0):
            for _ in range(copies):
                device.copy(source, target, stream)
            timer.mark(stream)
        assert (driver.calls - before).keys() == {"cuCtxSetCurrent", "cuMemcpyDtoDAsync", "cuEventRecord"}
        assert timer.intervals() == [0.004, 0.002, 0.001]  # a mark is a piece of work too
    del timer, source, target, stream
    gc.collect()
    device.close()
    assert not +driver.live


def test_more_marks_than_it_is_for() -> None:
    device = CudaDevice(driver=RecordingDriver())
    timer, stream = device.timer(1), device.stream()
    timer.mark(stream)
    with pytest.raises(IndexError):
        timer.mark(stream)


def test_marks_of_a_gpu_that_is_lost() -> None:
    driver = RecordingDriver(late=True)
    device = CudaDevice(driver=driver, patience=0.01)
    timer, stream = device.timer(1), device.stream()
    driver.stalled = True
    timer.mark(stream)
    with pytest.raises(GpuLost, match="does not answer"):
        timer.intervals()


def test_an_event_without_time_is_noticed() -> None:
    """What the assertions above are worth."""
    driver = RecordingDriver()
    device = CudaDevice(driver=driver)
    events = [device._context.event() for _ in range(2)]
    for event in events:
        device._context.record(event, device.stream().handle)
    with pytest.raises(Misuse):
        device._context.seconds(*events)
