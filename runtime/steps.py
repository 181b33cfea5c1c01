"""What a caller is told after every step of every picture."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.progress import Progress
from sdxl_trt.runtime.images.preview import PreviewFactors, preview
from sdxl_trt.runtime.loop import Loop
from sdxl_trt.runtime.snapshots import AHEAD, Snapshot


class Outcome(Protocol):
    """What a step left in its slots."""

    def latents(self, slot: int) -> NDArray[np.float32]:
        """The sample [4, h, w]."""

    def estimate(self, slot: int) -> NDArray[np.float32]:
        """The final latents [4, h, w] as the step foresaw them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One evaluation of one picture that is done. Nothing is read from the device unless it is asked for.

    A GPU goes on with the next evaluations meanwhile, up to `AHEAD` of them.

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
    _outcome: Outcome = field(repr=False)
    _slot: int = field(repr=False)
    _factors: Callable[[], PreviewFactors] = field(repr=False)

    def latents(self) -> NDArray[np.float32]:
        """The sample [4, h, w] as it is, noise and all."""
        return self._outcome.latents(self._slot)

    def estimate(self) -> NDArray[np.float32]:
        """The finished latents [4, h, w], as they look from here."""
        return self._outcome.estimate(self._slot)

    def preview(self) -> NDArray[np.uint8]:
        """Roughly what the picture will be: RGB [h, w, 3], an eighth of its size each way."""
        return preview(self.estimate(), self.factors())

    def factors(self) -> PreviewFactors:
        """What previews are computed with."""
        return self._factors()


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
        self.calls = callback is not None
        self._done = [0] * pictures
        self._started = time.monotonic()

    def tell(self, outcome: Outcome, running: Mapping[int, int], factors: Callable[[], PreviewFactors]) -> None:
        """Tell of pictures that have made a step.

        Args:
            outcome: what it left in their slots.
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
                _outcome=outcome,
                _slot=slot,
                _factors=factors,
            )
            self._callback(step)


class Follower:
    """Follows a loop: tells of its steps in their order, each when it is done, while the device does the next ones.

    Args:
        teller: that is told.
        loop: that makes the steps.
        factors: of previews, asked for once one is wanted.
    """

    def __init__(self, teller: Teller, loop: Loop, factors: Callable[[], PreviewFactors]) -> None:
        self._teller, self._loop, self._factors = teller, loop, factors
        self._untold = deque[tuple[Snapshot, dict[int, int]]]()

    def step(self, running: Mapping[int, int]) -> None:
        """The loop was given a step, of these pictures by slot. Waits for the oldest where `AHEAD` are behind it."""
        self._untold.append((self._loop.snapshot(keep=self._teller.calls), dict(running)))
        while self._untold and (len(self._untold) > AHEAD or self._untold[0][0].reached()):
            self._tell()

    def finish(self) -> None:
        """Tell of all that is left."""
        while self._untold:
            self._tell()

    def _tell(self) -> None:
        snapshot, running = self._untold.popleft()
        snapshot.wait()
        self._teller.tell(snapshot, running, self._factors)
