"""Parts of a run, cut out as diffusers' StableDiffusionXLPipeline and StableDiffusionXLImg2ImgPipeline do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdxl_trt.errors import NoStepLeft, UsageError
from sdxl_trt.runtime.levels import Mix
from sdxl_trt.runtime.schedules import Schedule


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which part of a run is asked for; None is all of it at that end."""

    strength: float | None
    start: float | None
    end: float | None

    def __post_init__(self) -> None:
        """Refuse what no run could be.

        Raises:
            UsageError: a value that is none, out of range, or leaves nothing.
        """
        for name, value in (("strength", self.strength), ("denoising_start", self.start), ("denoising_end", self.end)):
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise UsageError(f"{name} cannot be used", got=f"{value!r:.80}", expected="0 to 1", fix=f"{name}=0.8")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise UsageError(
                "denoising_start leaves nothing to do before denoising_end",
                got=f"denoising_start={self.start:g}, denoising_end={self.end:g}",
                expected="denoising_start below denoising_end",
                fix=f"leave denoising_end out to finish the picture, or denoising_start={self.end / 2:g}",
            )

    def first_evaluation(self, timesteps: Sequence[float], schedule: Schedule, order: int) -> int:
        """Number of the evaluation that comes first, from 0.

        Args:
            timesteps: of every evaluation of the whole run.
            schedule: of the whole run.
            order: evaluations per step.

        Raises:
            NoStepLeft: no step is left.
        """
        if self.start is not None:
            left = sum(timestep < self._cutoff(self.start, schedule) for timestep in timesteps)
            if left and order == 2 and left % 2 == 0:
                left += 1  # else it would begin with the second evaluation of a step
            first = len(timesteps) - left
        elif self.strength is not None:
            left = min(int(schedule.steps * self.strength), schedule.steps)
            first = (schedule.steps - left) * order
        else:
            return 0
        if left == 0:
            raise self._empty(schedule)
        return first

    def evaluations(self, timesteps: Sequence[float], schedule: Schedule) -> int:
        """How many evaluations are done, of those at `timesteps`.

        Raises:
            NoStepLeft: none.
        """
        if self.end is None or self.end == 1:
            return len(timesteps)
        cutoff = self._cutoff(self.end, schedule)
        count = sum(timestep >= cutoff for timestep in timesteps)
        if count == 0:
            raise NoStepLeft(
                "denoising_end",
                got=f"denoising_end={self.end:g}, and the first timestep is {timesteps[0]:g}",
                expected=f"a part that reaches below it: timesteps from {cutoff} up are done",
                fix="a larger denoising_end, or more steps",
            )
        return count

    def start_mix(self, schedule: Schedule, first: Mix) -> Mix:
        """How the starting sample is made of an image and of standard normal noise.

        Args:
            schedule: as it is done.
            first: level of the first evaluation.
        """
        if self.start is not None:
            return Mix(1.0, 0.0)
        return first if self.strength is not None else Mix(0.0, schedule.initial_scale)

    @staticmethod
    def _cutoff(part: float, schedule: Schedule) -> int:
        trained: int = schedule.settings["num_train_timesteps"]
        return round(trained - part * trained)

    def _empty(self, schedule: Schedule) -> NoStepLeft:
        name, value = ("strength", self.strength) if self.start is None else ("denoising_start", self.start)
        return NoStepLeft(
            name,
            got=f"{name}={value:g} of {schedule.steps} steps",
            expected="at least one step",
            fix=f"more steps, or strength={1 / schedule.steps:.2g} at least" if self.start is None else "more steps",
        )
