"""What a service takes of one request and of all of them together: the rest is refused, and says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdxl_trt.errors import SdxlTrtError, UsageError
from sdxl_trt.runtime.plans import Draft
from sdxl_trt.runtime.serve.job import Terms
from sdxl_trt.runtime.serve.scheduler import PRIORITIES


class Busy(SdxlTrtError):
    """The queue is full.

    Args:
        waiting: requests in it.
        seconds: after which there should be room.
    """

    def __init__(self, waiting: int, seconds: float) -> None:
        super().__init__(
            "the queue is full",
            got=f"{waiting} requests that wait or run",
            expected="fewer of them",
            fix=f"ask again in {seconds:.0f} s",
        )
        self.seconds = seconds


class NotServing(SdxlTrtError):
    """The service does not take requests: it starts, or ends, or its devices failed."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of a service."""

    queue: int = 256
    """Requests that wait or run."""
    images: int = 10
    """Of one request."""
    steps: int = 150
    """Of one request, the refiner's and a second order's evaluations counted."""
    prompt: int = 20_000
    """Characters of all texts of a request together."""

    def check(self, drafts: Sequence[Draft], terms: Terms) -> None:
        """Refuse a request that is too much for one.

        Raises:
            UsageError: says which limit.
        """
        settings = drafts[0].settings
        texts = (settings.prompt, settings.prompt_2, settings.negative_prompt, settings.negative_prompt_2)
        steps = sum(len(draft.rows) for draft in drafts)
        for name, got, most in (
            ("pictures", len(settings.seeds), self.images),
            ("evaluations", steps, self.steps),
            ("characters of prompts", sum(len(text or "") for text in texts), self.prompt),
        ):
            if got > most:
                raise UsageError(f"too many {name}", got=str(got), expected=f"at most {most}", fix="ask for less")
        if terms.priority not in PRIORITIES:
            raise UsageError(
                "priority cannot be used",
                got=str(terms.priority),
                expected=f"an integer from {PRIORITIES[0]} to {PRIORITIES[-1]}; more goes first",
                fix="priority=0",
            )
        if terms.seconds is not None and not 0 < terms.seconds <= 86_400:
            raise UsageError(
                "the deadline cannot be used", got=f"{terms.seconds}", expected="0 to 86400 seconds", fix="deadline=60"
            )
