"""The loop's bookkeeping, against the formulas of sdxl_trt/spec/column.py around a network of one line.

The real step graph runs in the same loop in test_pipeline.py.
"""

from __future__ import annotations

import dataclasses
import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from numpy_step import TOKENS, NumpyStep
from step_requests import HEIGHT, WIDTH, make_request, straight

from sdxl_trt.runtime.device import Buffer, HostBuffer, HostDevice, Stream
from sdxl_trt.runtime.loop import Loop, row_bucket
from sdxl_trt.runtime.noise import TorchGenerator
from sdxl_trt.runtime.slots import SlotRequest
from sdxl_trt.spec import ModelSpec


class Recording(HostDevice):
    """A host that pretends to record graphs, and counts uploads."""

    def __init__(self, *, captures: bool = False) -> None:
        self.captures = captures
        self.uploads = 0

    def upload(self, buffer: Buffer, array: NDArray[Any], stream: Stream) -> None:
        self.uploads += 1
        super().upload(buffer, array, stream)


@pytest.fixture
def engine(toy_model: ModelSpec) -> NumpyStep:
    return NumpyStep(toy_model)


def make_loop(engine: NumpyStep, slots: int, device: HostDevice | None = None) -> Loop:
    return Loop(engine, device or HostDevice(), slots=slots, height=HEIGHT, width=WIDTH, tokens=TOKENS)


def test_slots_that_join_and_leave_at_any_time_equal_single_runs(engine: NumpyStep) -> None:
    """Five images of different lengths, samplers, guidance and noise through three slots."""
    plans = [(1, 4, True, True), (2, 7, False, False), (3, 2, True, False), (4, 5, True, True), (5, 3, False, True)]
    loop = make_loop(engine, 3)
    waiting = [(seed, make_request(seed, steps, guided=g, noisy=n)) for seed, steps, g, n in plans]
    running: dict[int, tuple[int, SlotRequest]] = {}
    done = {}
    while waiting or running:
        if waiting and loop.free:  # one a step, so that no two are at the same step
            seed, request = waiting.pop(0)
            running[loop.join(request)] = seed, request
        for slot in loop.step():
            seed, request = running.pop(slot)
            done[seed] = request, loop.latents(slot), loop.estimate(slot)
            loop.leave(slot)
    assert sorted(done) == [1, 2, 3, 4, 5]
    assert loop.free == 3
    for seed, (request, latents, estimate) in done.items():
        wanted, wanted_estimate = straight(request, TorchGenerator(seed))
        np.testing.assert_array_equal(latents, wanted)
        np.testing.assert_array_equal(estimate, wanted_estimate)


def test_a_call_has_exactly_the_rows_it_needs(engine: NumpyStep) -> None:
    loop = make_loop(engine, 3)
    loop.join(make_request(1, 3))
    loop.join(make_request(2, 3, guided=False))
    loop.step()
    loop.join(make_request(3, 3))
    loop.step()
    loop.leave(0)
    loop.step()
    assert engine.rows == [[0, 0, 1], [0, 0, 1, 2, 2], [1, 2, 2]]
    assert engine.bound == [3, 5]  # a shape is bound once


def test_a_slot_whose_guidance_ends_drops_to_one_row(engine: NumpyStep) -> None:
    """One evaluation after the other, by its own guidance: 1 and less has a row of the prompt's alone."""
    loop = make_loop(engine, 2)
    request = dataclasses.replace(make_request(1, 4), guidance=np.array([3, 1, 2, 0.5], np.float32))
    loop.join(make_request(2, 4))
    slot = loop.join(request)
    for _ in range(4):
        loop.step()
    assert engine.rows == [[0, 0, 1, 1], [0, 0, 1], [0, 0, 1, 1], [0, 0, 1]]
    engine.rows.clear()
    alone = make_loop(engine, 1)
    again = dataclasses.replace(make_request(1, 4), guidance=request.guidance)
    alone.join(again)
    for _ in range(4):
        alone.step()
    np.testing.assert_array_equal(loop.latents(slot), alone.latents(0))
    assert engine.rows == [[0, 0], [0], [0, 0], [0]]


def test_where_shapes_are_recorded_rows_fill_up_to_a_power_of_two(engine: NumpyStep) -> None:
    device = Recording(captures=True)
    loop = make_loop(engine, 3, device)
    requests = [make_request(1, 3, guided=False), make_request(2, 3), make_request(3, 3)]
    slots = [loop.join(requests[0])]
    loop.step()
    slots.append(loop.join(requests[1]))
    loop.step()
    slots.append(loop.join(requests[2]))
    loop.step()
    assert engine.rows == [[0], [0, 1, 1, 0], [0, 1, 1, 2, 2, 0]]  # never more than two for each slot
    assert engine.bound == [1, 4, 6]
    np.testing.assert_array_equal(loop.latents(slots[0]), straight(requests[0], TorchGenerator(1))[0])


def test_row_buckets() -> None:
    assert [row_bucket(rows, 6) for rows in range(1, 7)] == [1, 2, 4, 4, 6, 6]
    assert [row_bucket(rows, 16) for rows in (5, 8, 9)] == [8, 8, 16]


def test_nan_stays_in_its_slot_and_does_not_outlive_it(engine: NumpyStep) -> None:
    loop = make_loop(engine, 2)
    broken, sound = make_request(1, 3, noisy=True), make_request(2, 3)
    broken.noise[:] = np.nan
    assert loop.join(broken) == 0
    neighbour = loop.join(sound)
    for _ in range(3):
        finished = loop.step()
    assert finished == (0, neighbour)
    assert np.isnan(loop.latents(0)).all()
    np.testing.assert_array_equal(loop.latents(neighbour), straight(sound, TorchGenerator(2))[0])
    for slot in finished:
        loop.leave(slot)
    successor = make_request(3, 4)
    assert loop.join(successor) == 0
    for _ in range(4):
        loop.step()
    np.testing.assert_array_equal(loop.latents(0), straight(successor, TorchGenerator(3))[0])


def test_a_steady_step_uploads_the_columns_alone_and_keeps_no_memory(engine: NumpyStep) -> None:
    device = Recording()
    loop = make_loop(engine, 2, device)
    loop.join(make_request(1, 50))
    loop.join(make_request(2, 50, guided=False))
    loop.step()
    before = device.uploads
    tracemalloc.start()
    try:
        loop.step()
        start = tracemalloc.get_traced_memory()[0]
        engine.rows.clear()
        for _ in range(20):
            loop.step()
            engine.rows.clear()
        grown = tracemalloc.get_traced_memory()[0] - start
    finally:
        tracemalloc.stop()
    assert device.uploads - before == 21
    print(f"memory after 20 steps: measured {grown} bytes more, required < 2048")
    assert grown < 2048


def test_rows_that_stay_as_they_are_are_not_written_again(engine: NumpyStep) -> None:
    device = Recording()
    loop = make_loop(engine, 3, device)
    loop.join(make_request(1, 9))
    loop.step()
    before = device.uploads
    loop.join(make_request(2, 9, guided=False))
    loop.step()
    assert device.uploads - before == 5 + 3 + 3 + 1  # the slot; the three maps; its row; the columns


def test_a_loop_without_slots_does_nothing(engine: NumpyStep) -> None:
    assert make_loop(engine, 1).step() == ()
    assert engine.rows == []


def test_a_copy_neither_broadcasts_nor_casts() -> None:
    device = HostDevice()
    buffer = device.allocate((2, 3), np.float32)
    for array in (np.zeros(3, np.float32), np.zeros((1, 3), np.float32)):
        with pytest.raises(ValueError, match="cannot copy"):
            device.upload(buffer, array, None)
    with pytest.raises(TypeError, match="cast"):
        device.upload(buffer, np.zeros((2, 3)), None)
    assert isinstance(buffer[1], HostBuffer)
    assert buffer[1].pointer == buffer.pointer + 12
