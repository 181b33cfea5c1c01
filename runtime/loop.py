"""The denoising loop: slots join, step together as rows of one UNet call, are parked, and leave.

It does not care whether its slots belong to one request or to many, nor whether they are at the same step.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.device import Device, Timer, Work
from sdxl_trt.runtime.engine import Engine, allocate, record
from sdxl_trt.runtime.slots import Conditioning, Parked, Slot, SlotRequest
from sdxl_trt.runtime.snapshots import AHEAD, Snapshot
from sdxl_trt.spec import COLUMN_WIDTH

_Map = NDArray[np.int32]
_ROW_TENSORS = ("text", "pooled", "time_ids", "guidance_embedding")


class Loop:
    """The step engine with its buffers, for images of one size.

    The state [slots, K, 4, h, w], its new value and all inputs stay on the device. Text is written when a slot joins,
    the maps between rows and slots when the set of slots changes; every step writes the columns, and noise where a
    sampler consumes it. Not thread-safe.

    Args:
        engine: the `step` graph.
        device: where it runs.
        slots: images in flight at most.
        height, width: of the latent.
        tokens: of the text that rows are conditioned on.
    """

    def __init__(self, engine: Engine, device: Device, *, slots: int, height: int, width: int, tokens: int) -> None:
        axes = {"slots": slots, "rows": 2 * slots, "height": height, "width": width, "tokens": tokens}
        self._engine, self._device, self._stream = engine, device, device.stream()
        self._buffers = allocate(engine, device, axes)
        self._snapshots = itertools.cycle(
            [Snapshot(device, self._buffers["state"], self._buffers["x0"]) for _ in range(AHEAD + 1)]
        )
        self._free = list(range(slots))
        self._slots: dict[int, Slot] = {}
        self._columns = np.zeros((slots, COLUMN_WIDTH), np.float32)
        self._rows: list[Conditioning | None] = [None] * (2 * slots)
        self._works: dict[int, Work] = {}  # by rows in the call
        self._work: Work | None = None  # None: the set of slots has changed since the last step

    @property
    def free(self) -> int:
        """How many more slots may join."""
        return len(self._free)

    def join(self, request: SlotRequest) -> int:
        """Take an image in; it steps with the others from the next `step` on. Returns its slot, below `slots`.

        Nothing that was in the slot before survives, infinities included.
        """
        stack = np.zeros(self._buffers["state"].shape[1:], np.float32)
        image = stack[0] if request.image is None else request.image
        table = request.table
        begin = image if request.begin is None else request.begin
        stack[0] = np.float32(table.initial_scale) * request.noise + np.float32(table.initial_image) * begin
        return self.resume(Parked(slot=Slot(request), state=stack))

    def park(self, slot: int) -> Parked:
        """Take an image out before it is finished, and free its slot. Waits for the steps so far."""
        parked = Parked(slot=self._slots[slot], state=self._device.download(self._buffers["state"][slot], self._stream))
        self.leave(slot)
        return parked

    def resume(self, parked: Parked) -> int:
        """Take an image in that was parked, in this loop or in another of its size; as `join`."""
        index = self._free.pop(0)
        self._slots[index] = parked.slot
        request, plain = parked.slot.request, np.zeros_like(parked.state[0])
        mask = np.ones(self._buffers["mask"].shape[1:], np.float32) if request.mask is None else request.mask
        values = {"state": parked.state, "initial_noise": request.noise, "noise": plain, "mask": mask}
        extra = {} if request.extra is None else {"extra": request.extra}
        image = plain if request.image is None else request.image
        for name, array in {**values, "image": image, **extra}.items():
            self._upload(name, array, index)
        self._work = None
        return index

    def leave(self, slot: int) -> None:
        """Free a slot, finished or not."""
        del self._slots[slot]
        self._columns[slot] = 0
        self._free.append(slot)
        self._work = None

    def step(self) -> tuple[int, ...]:
        """One evaluation of every slot. Returns the slots that it finished: read and free them before the next.

        Raises:
            RunError: the engine failed.
        """
        if not self._slots:
            return ()
        if self._work is None:
            self._work = self._map_rows()
        for index, slot in self._slots.items():
            self._columns[index] = slot.column
            noise = slot.draw()
            if noise is not None:
                self._upload("noise", noise, index)
        self._upload("column", self._columns)
        self._work(self._stream)
        for slot in self._slots.values():
            guided = slot.guided
            slot.position += 1
            if not slot.finished and slot.guided != guided:
                self._work = None  # guidance ends here: other rows from now on
        return tuple(index for index, slot in self._slots.items() if slot.finished)

    def snapshot(self, *, keep: bool) -> Snapshot:
        """What the last step left; it stays until so many more as AHEAD and one are taken.

        Args:
            keep: it will be read; else it only tells when the step is done.
        """
        snapshot = next(self._snapshots)
        snapshot.take(self._slots, self._stream, keep=keep)
        return snapshot

    def warm_up(self, rows: Iterable[int]) -> None:
        """Prepare steps of these numbers of rows, and run each once. No slot may be taken.

        Raises:
            RunError: the engine failed.
        """
        first = np.zeros(len(self._columns), np.int32)
        for count in sorted({self._filled_up(each) for each in rows}):
            self._upload_maps(first, first, np.repeat(first, 2))
            self._work_for(count)(self._stream)
        self._work = None
        self.estimate(0)

    def measure(self) -> dict[int, float]:
        """Seconds of a step by its rows: of each number of rows that a call may have, the best of three.

        Raises:
            RunError: the engine failed.
        """
        counts = sorted({self._filled_up(rows) for rows in range(1, 2 * len(self._columns) + 1)})
        self.warm_up(counts)
        return {count: min(self._seconds(count) for _ in range(3)) for count in counts}

    def _seconds(self, rows: int) -> float:
        started = time.perf_counter()
        self.warm_up([rows])
        return time.perf_counter() - started

    def latents(self, slot: int) -> NDArray[np.float32]:
        """The current sample [4, h, w] of a slot; of a finished one, the result. Waits for the steps so far."""
        return self._device.download(self._buffers["state"][slot][0], self._stream)

    def estimate(self, slot: int) -> NDArray[np.float32]:
        """The final latents [4, h, w] as the last step of a slot foresaw them (x̂₀). Waits for the steps so far."""
        return self._device.download(self._buffers["x0"][slot], self._stream)

    def mark(self, timer: Timer) -> None:
        """Have a timer note when the steps so far are done; does not wait for them."""
        timer.mark(self._stream)

    def _upload(self, name: str, array: NDArray[Any], index: int | None = None) -> None:
        buffer = self._buffers[name] if index is None else self._buffers[name][index]
        self._device.upload(buffer, array, self._stream)

    def _map_rows(self) -> Work:
        """Give every slot its rows, write what rows condition on, and return the work for that many."""
        slots = len(self._columns)
        conditional, unconditional = np.zeros(slots, np.int32), np.zeros(slots, np.int32)
        rows: list[tuple[int, Conditioning]] = []
        for index, slot in self._slots.items():
            unconditional[index] = len(rows)
            rows += [(index, conditioning) for conditioning in slot.rows]
            conditional[index] = len(rows) - 1
        bucket = self._filled_up(len(rows))
        rows += rows[:1] * (bucket - len(rows))
        owners = np.zeros(2 * slots, np.int32)
        owners[:bucket] = [index for index, _ in rows]
        self._upload_maps(conditional, unconditional, owners)
        for row, (_, conditioning) in enumerate(rows):
            self._condition(row, conditioning)
        return self._work_for(bucket)

    def _upload_maps(self, conditional: _Map, unconditional: _Map, owners: _Map) -> None:
        for name, array in (("cond_row", conditional), ("uncond_row", unconditional), ("row_slot", owners)):
            self._upload(name, array)

    def _filled_up(self, rows: int) -> int:
        """The rows of a call for so many: few numbers where each is recorded."""
        return row_bucket(rows, 2 * len(self._columns)) if self._device.captures else rows

    def _work_for(self, rows: int) -> Work:
        if rows not in self._works:
            self._works[rows] = self._record(rows)
        return self._works[rows]

    def _condition(self, row: int, conditioning: Conditioning) -> None:
        if self._rows[row] is conditioning:
            return
        for name in self._engine.inputs.keys() & _ROW_TENSORS:
            self._upload(name, getattr(conditioning, name), row)
        self._rows[row] = conditioning

    def _record(self, rows: int) -> Work:
        """The work of a step with so many rows: run the engine, then copy the new state over the old."""
        buffers = dict(self._buffers)
        for tensor in self._engine.inputs.values():
            if "rows" in tensor.shape:
                buffers[tensor.name] = buffers[tensor.name][:rows]
        binding, copy = self._engine.bind(buffers), self._device.copy  # without `self`: a loop goes when it is dropped
        return record(
            binding,
            self._device,
            self._stream,
            then=lambda stream: copy(buffers["new_state"], buffers["state"], stream),
        )


def row_bucket(rows: int, most: int) -> int:
    """The smallest power of two that holds so many rows, or the most there are."""
    return int(min(1 << (rows - 1).bit_length(), most))
