"""What a caller is told after every step of every picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.images.preview import PreviewFactors, preview
from sdxl_trt.runtime.loop import Loop


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One evaluation of one picture, just done. Nothing is read from the device unless it is asked for.

    What it gives must be asked for before the callback returns. An exception that the callback raises ends the request
    and is raised to its caller; the pipeline is as good as new after it.
    """

    picture: int
    """Its number in the request."""
    done: int
    """Evaluations of it that are done; from 1."""
    total: int
    """Evaluations of it in all: its steps, twice that for samplers of second order."""
    seconds_left: float
    """Until all pictures of the request are denoised, at the pace so far."""
    _loop: Loop = field(repr=False)
    _slot: int = field(repr=False)
    _factors: Callable[[], PreviewFactors] = field(repr=False)

    def latents(self) -> NDArray[np.float32]:
        """The sample [4, h, w] as it is, noise and all."""
        return self._loop.latents(self._slot)

    def estimate(self) -> NDArray[np.float32]:
        """The finished latents [4, h, w], as they look from here."""
        return self._loop.estimate(self._slot)

    def preview(self) -> NDArray[np.uint8]:
        """Roughly what the picture will be: RGB [h, w, 3], an eighth of its size each way."""
        return preview(self.estimate(), self._factors())


Callback = Callable[[Step], object]
"""What it returns is not looked at."""


class Teller:
    """Calls a callback after each evaluation of a loop.

    Args:
        callback: None: nothing is told.
        loop: that runs.
        factors: of previews, asked for once one is wanted.
        total: evaluations of all pictures.
    """

    def __init__(
        self, callback: Callback | None, loop: Loop, factors: Callable[[], PreviewFactors], *, total: int
    ) -> None:
        self._callback, self._loop, self._factors, self._total = callback, loop, factors, total
        self._started = time.monotonic()

    def tell(self, running: Mapping[int, int], done: int) -> None:
        """Tell of pictures that have just made a step.

        Args:
            running: their numbers, by slot.
            done: evaluations of all pictures so far.
        """
        if self._callback is None:
            return
        left = (time.monotonic() - self._started) / done * (self._total - done)
        for slot, picture in running.items():
            own, total = self._loop.position(slot)
            step = Step(
                picture=picture,
                done=own,
                total=total,
                seconds_left=left,
                _loop=self._loop,
                _slot=slot,
                _factors=self._factors,
            )
            self._callback(step)
