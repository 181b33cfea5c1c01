"""Runs cases and says of each how far the two sides are apart, and what that is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from benchmarks.fidelity.cases import PREDICTIONS, STEPS, TASKS, Absence, Case, cases
from benchmarks.fidelity.models import Model
from benchmarks.fidelity.sides import Latents, Ours, Theirs

BOUND: Final = 1e-3
"""Of the largest difference, in parts of the reference's largest element."""
ROUNDED_BOUND: Final = 5e-3
"""The same where diffusers' float32 is shown to be the further away from float64."""
REMARKABLE: Final = 1e-4
"""Above this error, both sides' distances to float64 are measured."""
REASONS: Final[dict[str, str]] = {}
"""Rows that do not pass, and why that is right, by `str(case)`."""


@dataclass(frozen=True, kw_only=True)
class Distances:
    """Both sides' distances to diffusers run in float64."""

    theirs: float
    ours: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case, compared."""

    case: Case
    error: float
    """Largest difference over the largest magnitude of the reference's float32."""
    to_double: Distances | None = None
    """Measured where the error is above REMARKABLE."""

    @property
    def bound(self) -> float:
        """What the error must keep."""
        rounded = self.to_double is not None and self.to_double.ours < self.to_double.theirs
        return ROUNDED_BOUND if rounded and self.error > BOUND else BOUND

    @property
    def passed(self) -> bool:
        """The error keeps its bound."""
        return self.error <= self.bound

    @property
    def reason(self) -> str:
        """Why the bound is not BOUND, or why the row need not pass; empty where neither is so, which is a failure."""
        if not self.passed:
            return REASONS.get(str(self.case), "")
        return "diffusers computes in float32 what sdxl-trt does in float64" if self.bound == ROUNDED_BOUND else ""

    @property
    def failed(self) -> bool:
        """It neither passes nor is listed with a reason."""
        return not self.passed and not self.reason

    def as_json(self) -> dict[str, Any]:
        """All of it, the reference included."""
        case = self.case
        distances = self.to_double and {"diffusers": self.to_double.theirs, "sdxl-trt": self.to_double.ours}
        return {
            "sampler": case.sampler.name,
            "variant": case.variant.name,
            "prediction": case.prediction,
            "task": case.task,
            "steps": STEPS,
            "max_relative_error": self.error,
            "bound": self.bound,
            "passed": self.passed,
            "reason": self.reason,
            "distance_to_float64": distances,
            "reference": reference(case),
        }


def reference(case: Case) -> dict[str, Any]:
    """What a case is compared with."""
    classes = {
        "text": "StableDiffusionXLPipeline",
        "image": "StableDiffusionXLImg2ImgPipeline",
        "inpaint": "StableDiffusionXLInpaintPipeline",
        "ensemble": "StableDiffusionXLPipeline, StableDiffusionXLImg2ImgPipeline",
    }
    return {
        "pipeline": classes[case.task],
        "dtype": "float32",
        "generator": "torch, CPU",
        "scheduler": case.config,
    }


class Comparison:
    """Both sides, loaded; diffusers in float64 once it is needed.

    Args:
        base, refiner: the models of both.
    """

    def __init__(self, base: Model, refiner: Model) -> None:
        self._models = base, refiner
        self._ours, self._theirs = Ours(base, refiner), Theirs(base, refiner)
        self._double: Theirs | None = None

    def compare(self, case: Case) -> Row | Absence:
        """One row; or, where diffusers refuses a prediction, what it says."""
        try:
            wanted = self._theirs.latents(case)
        except (NotImplementedError, ValueError) as refusal:
            if case.prediction != "sample":
                raise
            said = " ".join(str(refusal).split()).rstrip(".")
            return Absence(
                sampler=case.sampler.name,
                variant=case.variant.name,
                predictions=(case.prediction,),
                tasks=(case.task,),
                reason=f"diffusers refuses: {said}",
            )
        got = self._ours.latents(case)
        error = distance(got, wanted)
        remarkable = error > REMARKABLE
        return Row(case=case, error=error, to_double=self._to_double(case, got, wanted) if remarkable else None)

    def _to_double(self, case: Case, got: Latents, wanted: Latents) -> Distances:
        if self._double is None:
            self._double = Theirs(*self._models, double=True)
        exact = self._double.latents(case)
        return Distances(theirs=distance(wanted, exact), ours=distance(got, exact))


def distance(one: Latents, other: Latents) -> float:
    """Largest difference over the other's largest magnitude; infinite where anything is not a number."""
    if one.shape != other.shape or not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float("inf")
    return float(np.abs(one.astype(np.float64) - other).max() / np.abs(other).max())


def spread() -> Iterator[Case]:
    """Some cases of every sampler and task, always the same ones: variants and predictions take turns."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases():
        groups.setdefault((case.task, case.sampler.name), []).append(case)
    for number, group in enumerate(sorted(groups.items(), key=lambda item: _turn(*item[0]))):
        yield group[1][5 * number % len(group[1])]


def _turn(task: str, sampler: str) -> tuple[int, str]:
    """All samplers have one task before any has two, and not all the same."""
    names: Sequence[str] = sorted({case.sampler.name for case in cases()})
    place = names.index(sampler)
    return (TASKS.index(task) + place) % len(TASKS), sampler


def merged(absences: Sequence[Absence]) -> list[Absence]:
    """With those of one sampler and reason in one."""
    found: dict[tuple[str, str], list[Absence]] = {}
    for each in absences:
        found.setdefault((each.sampler, each.reason), []).append(each)
    return [
        Absence(
            sampler=sampler,
            variant=", ".join(dict.fromkeys(each.variant for each in group)),
            predictions=tuple(p for p in PREDICTIONS if any(p in each.predictions for each in group)),
            tasks=tuple(t for t in TASKS if any(t in each.tasks for each in group)),
            reason=reason,
        )
        for (sampler, reason), group in found.items()
    ]
