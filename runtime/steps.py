"""What a caller is told after every step of every picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.progress import Progress
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
    """Evaluations of it in all: its steps, twice that for samplers of second order; a refiner's are among them."""
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
    """Tells progress and a callback of each evaluation of a request, whichever loops it goes through.

    Args:
        callback: None: progress alone is told.
        progress: told of all pictures together.
        pictures: how many there are.
        evaluations: of each.
    """

    def __init__(self, callback: Callback | None, progress: Progress, *, pictures: int, evaluations: int) -> None:
        self._callback, self._progress, self._evaluations = callback, progress, evaluations
        self._done = [0] * pictures
        self._started = time.monotonic()

    def tell(self, loop: Loop, running: Mapping[int, int], factors: Callable[[], PreviewFactors]) -> None:
        """Tell of pictures that have just made a step.

        Args:
            loop: that they are in.
            running: their numbers, by slot.
            factors: of previews, asked for once one is wanted.
        """
        for picture in running.values():
            self._done[picture] += 1
        done, total = sum(self._done), len(self._done) * self._evaluations
        self._progress("denoising", done, total)
        if self._callback is None:
            return
        left = (time.monotonic() - self._started) / done * (total - done)
        for slot, picture in running.items():
            step = Step(
                picture=picture,
                done=self._done[picture],
                total=self._evaluations,
                seconds_left=left,
                _loop=loop,
                _slot=slot,
                _factors=factors,
            )
            self._callback(step)
