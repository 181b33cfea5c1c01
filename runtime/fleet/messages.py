"""What a fleet and its workers tell each other, through multiprocessing's pipes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.bundle import Target
from sdxl_trt.runtime.images.preview import PreviewFactors
from sdxl_trt.runtime.policy import Policy
from sdxl_trt.runtime.steps import Step
from sdxl_trt.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a worker is to load, as of `Pipeline.load`; its first message. The answer is an `About`."""

    bundle: Path
    device: str
    threads: int | None
    refiner: bool
    memory: str


@dataclass(frozen=True, kw_only=True)
class About:
    """What was loaded."""

    model: ModelSpec
    target: Target
    refiner: ModelSpec | None
    memory: Policy


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """A method of the pipeline to call; its result is the answer."""

    method: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    told: bool = False
    """Progress is wanted, which only `run` has."""
    called: bool = False
    """Every step is wanted too."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stop:
    """End the call that is under way, which answers `Stopped`."""


class StoppedError(Exception):
    """A call was ended because it was asked for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """Progress of a part of the pictures."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True, eq=False)
class SentStep:
    """A `Step` with all that it gives: the process that it comes from does not wait for it to be looked at."""

    picture: int
    done: int
    total: int
    seconds_left: float
    sample: NDArray[np.float32]
    final: NDArray[np.float32]
    factors: PreviewFactors

    @classmethod
    def of(cls, step: Step) -> SentStep:
        """Everything of a step."""
        return cls(
            picture=step.picture,
            done=step.done,
            total=step.total,
            seconds_left=step.seconds_left,
            sample=step.latents(),
            final=step.estimate(),
            factors=step.factors(),
        )

    def step(self, first: int) -> Step:
        """The same as a step of a picture among others, the first of the sender's being number `first`."""
        return Step(
            picture=first + self.picture,
            done=self.done,
            total=self.total,
            seconds_left=self.seconds_left,
            _outcome=self,
            _slot=self.picture,
            _factors=lambda: self.factors,
        )

    def latents(self, _slot: int) -> NDArray[np.float32]:
        """The sample [4, h, w]."""
        return self.sample

    def estimate(self, _slot: int) -> NDArray[np.float32]:
        """The final latents [4, h, w] as the step foresaw them."""
        return self.final


@dataclass(frozen=True, kw_only=True, eq=False)
class Done:
    """The answer to an `Opening` or a `Call`."""

    value: Any


@dataclass(frozen=True, kw_only=True, eq=False)
class Failed:
    """The answer where there is none."""

    error: Exception
