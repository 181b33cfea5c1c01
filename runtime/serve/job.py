"""One request on its way through the service: what is known of it, and who is told."""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import SdxlTrtError
from sdxl_trt.runtime.loop import Loop
from sdxl_trt.runtime.pipeline import Pipeline
from sdxl_trt.runtime.plans import Draft, Plan
from sdxl_trt.runtime.request import Request
from sdxl_trt.runtime.results import Result
from sdxl_trt.runtime.serve.scheduler import Costs, Group
from sdxl_trt.runtime.slots import Parked, SlotRequest

if TYPE_CHECKING:
    from PIL.Image import Image

QUEUED, ENCODING, DENOISING, DECODING, DONE = "queued", "encoding", "denoising", "decoding", "done"
STAGES = (QUEUED, ENCODING, DENOISING, DECODING)
"""Of a request, in their order."""
_numbers = itertools.count(1)


class Cancelled(SdxlTrtError):
    """The request was taken back by who made it."""


class DeadlinePassed(SdxlTrtError):
    """The request was not done in the time it was given."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How a request is to be served."""

    client: str = ""
    """Who asks: requests of one client share what they get."""
    priority: int = 0
    """One of `scheduler.PRIORITIES`; more goes first."""
    seconds: float | None = None
    """It fails where it is not done so many seconds after it came."""
    partials: int = 0
    """Pictures of the way there, decoded, evenly spread over the steps of each picture."""
    on_partial: Callable[[int, int, Image], object] | None = None
    """Called from another thread with the picture's number, the partial's, and what it looks like; must be quick."""
    output: str = "image"
    """'image' or 'latents'."""
    noise: NDArray[np.float32] | None = None
    """[N, 4, h, w] to start from."""


@dataclass(eq=False, kw_only=True)
class Place:
    """Where a picture is, in a loop."""

    loop: Loop
    slot: int


class PictureWork:
    """One picture: its legs (the base's, and the refiner's), and where it is.

    Args:
        job: that it belongs to.
        index: its number there.
    """

    def __init__(self, job: Job, index: int) -> None:
        self._job = weakref.ref(job)  # a request that is done lets go of its pictures and engines at once
        self.index = index
        self.leg, self.done = 0, 0
        self.place: Place | None = None
        self.waiting: SlotRequest | Parked | None = None
        """What joins a loop next; None where it is in one, or is not encoded yet, or is finished."""
        self.request: SlotRequest | None = None
        """Of the leg that it is in."""
        self.latents: NDArray[np.float32] | None = None
        self.image: Image | None = None
        self._rows = [draft.rows for draft in job.drafts]
        self._left = [[int(rows[i:].sum()) for i in range(len(rows) + 1)] for rows in self._rows]

    @property
    def job(self) -> Job:
        """That it belongs to, and who holds on to it."""
        job = self._job()
        if job is None:
            raise ValueError("a picture of a request that nobody holds")
        return job

    @property
    def group(self) -> Group | None:
        """Of its next evaluation; None: it cannot step now."""
        steps = self.place is not None or self.waiting is not None
        return self.job.group(self.leg) if steps else None

    @property
    def rows(self) -> int:
        """Of its next evaluation."""
        return int(self._rows[self.leg][self.done])

    def started(self) -> SlotRequest:
        """What it was begun with."""
        if self.request is None:
            raise ValueError("a picture that was not begun")
        return self.request

    @property
    def total(self) -> int:
        """Evaluations in all."""
        return sum(map(len, self._rows))

    @property
    def evaluated(self) -> int:
        """Evaluations that are done, of all legs."""
        return sum(map(len, self._rows[: self.leg])) + self.done

    def left(self, costs: Costs) -> float:
        """Seconds that its rows take that are not done yet."""
        seconds = 0.0
        for leg in range(self.leg, len(self._rows)):
            rows = self._left[leg][self.done if leg == self.leg else 0]
            seconds += rows * costs.of(self.job.group(leg), self.job.pixels)
        return seconds


class Job:
    """A request, from its arrival to its result. Its worker's thread changes it; anybody may look and cancel.

    Args:
        request: what is asked for.
        drafts: what each model is to do.
        terms: how it is to be served.
        arrived: by `time.monotonic`.
    """

    def __init__(self, request: Request, drafts: Sequence[Draft], terms: Terms, arrived: float) -> None:
        self.number = next(_numbers)
        self.request = replace(request, seed=drafts[0].settings.seeds)
        self.drafts, self.terms, self.arrived = drafts, terms, arrived
        self.plans = list[Plan]()
        self.result: Future[Result] = Future()
        self.result.set_running_or_notify_cancel()  # who waits for it may not cancel it: that is for `cancel`
        self.all = [PictureWork(self, index) for index in range(len(drafts[0].settings.seeds))]
        self.stage, self.stages = QUEUED, dict[str, float]()
        self.began = arrived
        self.cancelled = False
        self.behind = 0.0
        self.moves = 0
        """Devices that failed with it."""
        self._ending, self._over = threading.Lock(), False
        self.wants_preview = False
        self.preview: NDArray[np.uint8] | None = None
        """Roughly what one of its pictures will be, RGB [h, w, 3], where that is wanted."""
        every = self.all[0].total / (terms.partials + 1)
        self.partial_at = {round(every * i): i - 1 for i in range(1, terms.partials + 1)}

    @property
    def client(self) -> str:
        """Who asked."""
        return self.terms.client

    @property
    def priority(self) -> int:
        """More goes first."""
        return self.terms.priority

    @property
    def pictures(self) -> list[PictureWork]:
        """Those that are not denoised."""
        return [picture for picture in self.all if picture.latents is None]

    @property
    def complete(self) -> bool:
        """Nothing is left to do but to tell."""
        wanted = (each.latents if self.terms.output == "latents" else each.image for each in self.all)
        return all(each is not None for each in wanted)

    @property
    def pixels(self) -> int:
        """Latent pixels of a row."""
        _, height, width = self.drafts[0].settings.latent_shape
        return height * width

    @property
    def progress(self) -> tuple[int, int]:
        """Evaluations that are done, and all of them."""
        return sum(each.evaluated for each in self.all), sum(each.total for each in self.all)

    @property
    def expires(self) -> float | None:
        """When it fails, by `time.monotonic`."""
        return None if self.terms.seconds is None else self.arrived + self.terms.seconds

    def group(self, leg: int) -> Group:
        """What its pictures must have in common with others in one leg, as far as known before prompts are read."""
        _, height, width = self.drafts[leg].settings.latent_shape
        model = self.drafts[leg].expert.model
        tokens = len(self.plans[leg].prompt.text) if self.plans else model.text_encoders[0].tokens
        return leg, height, width, tokens

    def enter(self, stage: str) -> None:
        """Go on to a stage; the time of the one before is noted."""
        now = time.monotonic()
        self.stages[self.stage] = self.stages.get(self.stage, 0.0) + now - self.began
        self.stage, self.began = stage, now

    def end(self, error: BaseException | None) -> bool:
        """Tell what came of it, or the error that ended it. Returns whether this was its end: the first one counts."""
        with self._ending:
            if self._over:
                return False
            self._over = True
        self.enter(DONE)
        self.result.set_exception(error) if error else self.result.set_result(self._made())
        return True

    def _made(self) -> Result:
        first, last = self.plans[0], self.plans[-1]
        return Result(
            images=[each.image for each in self.all if each.image is not None],
            latents=np.stack([each.latents for each in self.all if each.latents is not None]),
            seeds=first.settings.seeds,
            settings=first.settings,
            refiner=last.settings if last is not first else None,
        )

    def begin_again(self, pipeline: Pipeline) -> None:
        """Forget what was done: another device takes it."""
        self.moves += 1
        self.drafts, self.plans = pipeline.draft(self.request, len(self.all)), []
        self.all = [PictureWork(self, index) for index in range(len(self.all))]
        self.enter(QUEUED)

    def cancel(self) -> None:
        """Take it back: its slots are free from the next step on. Does nothing once it is done."""
        self.cancelled = True
