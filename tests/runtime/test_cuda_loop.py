"""The real loop on `CudaDevice` over a driver that records its calls, with a step engine of a few lines of numpy."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from gpu_checks import PlainDevice
from numpy_step import TOKENS, NumpyBinding, NumpyStep
from recording_driver import RecordingDriver
from step_requests import HEIGHT, WIDTH, make_request, straight

from sdxl_trt.progress import Progress, silent
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.cuda.device import UPLOAD_BLOCKS
from sdxl_trt.runtime.device import Buffer, HostDevice
from sdxl_trt.runtime.loop import Loop
from sdxl_trt.runtime.noise import TorchGenerator
from sdxl_trt.runtime.snapshots import AHEAD
from sdxl_trt.runtime.steps import Callback, Follower, Step, Teller
from sdxl_trt.spec import ModelSpec


class CudaStep(NumpyStep):
    """The step as a kernel on a stream of the recording driver."""

    def __init__(self, model: ModelSpec, driver: RecordingDriver) -> None:
        super().__init__(model)
        self.driver = driver
        self.ran = 0

    def bind(self, buffers: Mapping[str, Buffer]) -> CudaBinding:
        self.bound.append(buffers["row_slot"].shape[0])
        return CudaBinding(self, buffers)


class CudaBinding:
    capturable = True

    def __init__(self, engine: CudaStep, buffers: Mapping[str, Buffer]) -> None:
        self.engine, self.buffers = engine, dict(buffers)

    def enqueue(self, stream: Any) -> None:
        self.engine.driver.launch(stream.handle, self.kernel)

    def kernel(self) -> None:
        tensors = {
            name: self.engine.driver.tensor(buffer.pointer, buffer.shape, buffer.dtype)
            for name, buffer in self.buffers.items()
        }
        NumpyBinding(self.engine, tensors).enqueue(None)
        self.engine.rows.clear()
        self.engine.ran += 1


def make_loop(
    toy_model: ModelSpec, driver: RecordingDriver, slots: int, kind: type[CudaDevice] = CudaDevice
) -> tuple[Loop, CudaStep]:
    engine = CudaStep(toy_model, driver)
    return Loop(engine, kind(driver=driver), slots=slots, height=HEIGHT, width=WIDTH, tokens=TOKENS), engine


def run_all(loop: Loop, plans: list[tuple[int, int, bool, bool]]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Pictures by seed, that join one a step: latents and the last x̂₀."""
    waiting = [(seed, make_request(seed, steps, guided=g, noisy=n)) for seed, steps, g, n in plans]
    running, done = dict[int, int](), {}
    while waiting or running:
        if waiting and loop.free:
            seed, request = waiting.pop(0)
            running[loop.join(request)] = seed
        for slot in loop.step():
            done[running.pop(slot)] = loop.latents(slot), loop.estimate(slot)
            loop.leave(slot)
    return done


@pytest.mark.parametrize("late", [False, True], ids=["prompt", "late"])
def test_pictures_are_those_of_the_host(toy_model: ModelSpec, late: bool) -> None:
    plans = [(1, 4, True, True), (2, 7, False, False), (3, 2, True, False), (4, 5, True, True), (5, 3, False, True)]
    loop, engine = make_loop(toy_model, RecordingDriver(late=late), 3)
    done = run_all(loop, plans)
    for seed, steps, guided, noisy in plans:
        wanted = straight(make_request(seed, steps, guided=guided, noisy=noisy), TorchGenerator(seed))
        for got, expected in zip(done[seed], wanted, strict=True):
            np.testing.assert_array_equal(got, expected)
    assert sorted(engine.bound) == sorted(set(engine.bound))  # one recording for each number of rows
    calls = engine.driver.calls
    assert calls["cuStreamBeginCapture"] == calls["cuGraphInstantiate"] == len(engine.bound)


def test_recorded_steps_are_the_plain_ones(toy_model: ModelSpec) -> None:
    plans, found = [(1, 4, True, True), (2, 6, False, True)], []
    for kind in (CudaDevice, PlainDevice):
        loop, engine = make_loop(toy_model, RecordingDriver(late=True), 2, kind)
        found.append(run_all(loop, plans))
        assert (engine.driver.calls["cuGraphLaunch"] > 0) == (kind is CudaDevice)
    for seed, *_ in plans:
        for recorded, plain in zip(found[0][seed], found[1][seed], strict=True):
            np.testing.assert_array_equal(recorded, plain)


def test_a_steady_step_is_one_copy_and_one_launch(toy_model: ModelSpec) -> None:
    """Nothing that allocates, records or waits: an event that guards a block is asked for, and it has come."""
    driver = RecordingDriver()
    loop, _ = make_loop(toy_model, driver, 2)
    loop.join(make_request(1, 40))
    loop.join(make_request(2, 40, guided=False, noisy=True))
    loop.step()
    driver.calls.clear()
    driver.waits = 0
    for _ in range(30):
        loop.step()
    uploads = 30 + 15  # the columns of each step, and noise in every other
    print(dict(driver.calls))
    assert driver.calls == {
        "cuCtxSetCurrent": 30 + uploads,
        "cuEventQuery": uploads,
        "cuMemcpyHtoDAsync": uploads,
        "cuEventRecord": uploads,
        "cuGraphLaunch": 30,
    }
    assert driver.waits == 0


def test_marks_put_an_event_behind_each_step_and_nothing_else(toy_model: ModelSpec) -> None:
    """What a bench adds to the loop: neither waits nor allocations."""
    driver = RecordingDriver(late=True)
    loop, _ = make_loop(toy_model, driver, 1)
    loop.join(make_request(1, 40))
    loop.step()
    timer = loop._device.timer(30)
    loop._device.wait_idle()  # type: ignore[attr-defined]
    before = driver.calls.copy()
    driver.waits = 0
    for _ in range(30):
        loop.step()
        loop.mark(timer)
    print(dict(driver.calls - before))
    assert driver.calls - before == {
        "cuCtxSetCurrent": 90,
        "cuEventQuery": 30,
        "cuMemcpyHtoDAsync": 30,
        "cuEventRecord": 60,
        "cuGraphLaunch": 30,
    }
    assert driver.waits == 0
    assert len(set(timer.intervals())) == 1  # each step is the same work


def test_a_late_gpu_is_waited_for_only_a_lap_later(toy_model: ModelSpec) -> None:
    driver = RecordingDriver(late=True)
    loop, _ = make_loop(toy_model, driver, 1)
    loop.join(make_request(1, 5 * UPLOAD_BLOCKS))
    loop.step()
    loop._device.wait_idle()  # type: ignore[attr-defined]
    driver.waits = 0
    for _ in range(UPLOAD_BLOCKS):
        loop.step()
    assert driver.waits == 0
    loop.step()
    assert driver.waits > 0
    for _ in range(4 * UPLOAD_BLOCKS - 2):
        loop.step()
    request = make_request(1, 5 * UPLOAD_BLOCKS)
    np.testing.assert_array_equal(loop.latents(0), straight(request, TorchGenerator(1))[0])


def test_a_thousand_pictures_leave_nothing_behind(toy_model: ModelSpec) -> None:
    driver = RecordingDriver()
    loop, _ = make_loop(toy_model, driver, 4)
    requests = [make_request(seed, 2, guided=seed % 2 == 0, noisy=True) for seed in range(8)]
    for request in requests:  # rows of 2 pictures, and of 4: 1 + 2 and more
        run_pictures(loop, [request])
    run_pictures(loop, requests)
    gc.collect()
    device = loop._device
    before, use, calls = driver.live, device.memory(), dict(driver.calls)  # type: ignore[attr-defined]
    for _ in range(125):
        run_pictures(loop, requests)
    gc.collect()
    print(f"lent before and after 1,000 pictures: {dict(before)}, {dict(driver.live)}; {use}")
    assert driver.live == before
    assert device.memory() == use  # type: ignore[attr-defined]
    for name in ("cuMemAlloc", "cuMemHostAlloc", "cuStreamCreate", "cuEventCreate", "cuStreamBeginCapture"):
        assert driver.calls[name] == calls[name]


def run_pictures(loop: Loop, requests: list[Any]) -> None:
    waiting = list(requests)
    running = set[int]()
    while waiting or running:
        while waiting and loop.free:
            running.add(loop.join(waiting.pop()))
        for slot in loop.step():
            assert loop.latents(slot).shape == (4, HEIGHT, WIDTH)
            running.remove(slot)
            loop.leave(slot)


def test_a_loop_that_is_dropped_gives_everything_back(toy_model: ModelSpec) -> None:
    driver = RecordingDriver()
    loop, engine = make_loop(toy_model, driver, 2)
    device = loop._device
    run_all(loop, [(1, 3, True, True)])
    del loop
    gc.collect()
    freed = driver.calls["cuMemFree"]
    device.allocate((1,), np.float32)
    assert driver.calls["cuMemFree"] == freed + len(engine.inputs) + len(engine.outputs) + 2 * (AHEAD + 1)
    assert driver.live["executable"] == 0
    device.close()  # type: ignore[attr-defined]
    assert not +driver.live


class Ordered(RecordingDriver):
    """A late GPU, and in which order it was asked for what: launches, and on which stream copies and waits were."""

    def __init__(self) -> None:
        super().__init__(late=True)
        self.order = list[tuple[str, int]]()

    def cuGraphLaunch(self, executable: int, stream: int) -> Any:  # noqa: N802
        self.order.append(("launch", stream))
        return super().cuGraphLaunch(executable, stream)

    def cuMemcpyDtoHAsync(self, target: int, source: int, size: int, stream: int) -> Any:  # noqa: N802
        self.order.append(("read", stream))
        return super().cuMemcpyDtoHAsync(target, source, size, stream)

    def cuStreamWaitEvent(self, handle: int, event: int, flags: int) -> Any:  # noqa: N802
        self.order.append(("hold", handle))
        return super().cuStreamWaitEvent(handle, event, flags)


def follow(loop: Loop, steps: int, callback: Callback | None = None, progress: Progress = silent) -> None:
    """Two pictures, one of them guided."""
    running = {loop.join(make_request(seed, steps, guided=seed == 1, noisy=True)): seed - 1 for seed in (1, 2)}
    follower = Follower(Teller(callback, progress, pictures=2, evaluations=steps), loop, lambda: pytest.fail("asked"))
    for _ in range(steps):
        loop.step()
        follower.step(running)
    follower.finish()
    for slot in running:
        loop.leave(slot)


def test_steps_are_looked_at_while_the_next_ones_run(toy_model: ModelSpec) -> None:
    steps, driver = 12, Ordered()
    loop, engine = make_loop(toy_model, driver, 2)
    follow(loop, 2)  # records
    loop._device.wait_idle()  # type: ignore[attr-defined]
    engine.ran = 0
    driver.order.clear()
    before = dict(driver.calls)
    told = list[tuple[int, int, int, int]]()
    seen = list[Any]()

    def look(step: Step) -> None:
        ran, waits = engine.ran, driver.waits
        launched = sum(what == "launch" for what, _ in driver.order)
        seen.append((step.latents(), step.estimate()))
        assert engine.ran == ran == step.done  # to read was not to wait for later steps
        told.append((step.picture, step.done, launched, driver.waits - waits))

    follow(loop, steps, look)
    assert [each[:2] for each in told] == [(picture, done) for done in range(1, steps + 1) for picture in (0, 1)]
    assert [launched for *_, launched, _ in told] == [min(done + AHEAD, steps) for _, done, *_ in told]
    for name in ("cuMemAlloc", "cuMemHostAlloc", "cuStreamCreate", "cuEventCreate", "cuStreamBeginCapture"):
        assert driver.calls[name] == before[name]

    (stream,) = {stream for what, stream in driver.order if what == "launch"}
    others = {(what, on) for what, on in driver.order if on != stream}
    print(driver.order[:20])
    assert {what for what, _ in others} == {"read", "hold"}  # the reading stream waits on the GPU, and reads
    assert len({on for _, on in others}) == 1
    assert all(what == "launch" for what, on in driver.order if on == stream)  # nothing of it is on the loop's stream

    host = Loop(NumpyStep(toy_model), HostDevice(), slots=2, height=HEIGHT, width=WIDTH, tokens=TOKENS)
    wanted = list[Any]()
    follow(host, steps, lambda step: wanted.append((step.latents(), step.estimate())))
    np.testing.assert_array_equal(seen, wanted)


def test_progress_is_of_steps_that_are_done(toy_model: ModelSpec) -> None:
    """And copies nothing where nobody looks."""
    steps, driver = 12, Ordered()
    loop, engine = make_loop(toy_model, driver, 2)
    follow(loop, 2)
    loop._device.wait_idle()  # type: ignore[attr-defined]
    engine.ran = 0
    driver.order.clear()
    copies = driver.calls["cuMemcpyDtoDAsync"]
    told = list[tuple[int, int]]()
    follow(loop, steps, progress=lambda _stage, done, _total: told.append((done, engine.ran)))
    assert told == [(2 * done, done) for done in range(1, steps + 1)]
    assert {what for what, _ in driver.order} == {"launch"}
    assert driver.calls["cuMemcpyDtoDAsync"] == copies
