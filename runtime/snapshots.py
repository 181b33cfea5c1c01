"""What steps left, read while the next ones run.

A step's results are overwritten by the next. So they are set aside on the device, in the order of the loop's stream
and without waiting; an event behind that says when they are there, and they are read on another stream.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.device import Buffer, Device, Stream

AHEAD = 2
"""Steps that may be under way while an earlier one is looked at: a GPU has work as long as that takes no longer."""


class Snapshot:
    """The results of a step, and a place for them.

    Args:
        device: where they are.
        state: [slots, K, 4, h, w], of which the first entry is the sample.
        x0: [slots, 4, h, w].
    """

    def __init__(self, device: Device, state: Buffer, x0: Buffer) -> None:
        self._device, self._state, self._x0 = device, state, x0
        self._latents, self._estimates = (
            device.allocate(x0.shape, x0.dtype, f"a copy of {what}") for what in ("latents", "estimates")
        )
        self._done = device.event()

    def take(self, slots: Iterable[int], stream: Stream, *, keep: bool) -> None:
        """Note that a step was put on the stream; where they are to be read, set its results aside."""
        if keep:
            for slot in slots:
                self._device.copy(self._state[slot][0], self._latents[slot], stream)
            self._device.copy(self._x0, self._estimates, stream)
        self._done.record(stream)

    def reached(self) -> bool:
        """The step is done."""
        return self._done.reached()

    def wait(self) -> None:
        """Wait until it is."""
        self._done.wait()

    def latents(self, slot: int) -> NDArray[np.float32]:
        """The sample [4, h, w] of a slot after the step."""
        return self._device.read(self._latents[slot], self._done)

    def estimate(self, slot: int) -> NDArray[np.float32]:
        """The final latents [4, h, w] of a slot as the step foresaw them (x̂₀)."""
        return self._device.read(self._estimates[slot], self._done)
