"""Samplers: each is one recurrence, written as its paper writes it (see `sdxl_trt.runtime.table`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from sdxl_trt.errors import SchedulerError, UnknownName
from sdxl_trt.runtime.schedule import Schedule, make_schedule
from sdxl_trt.runtime.table import Form, Level, Table, Tape

Recurrence = Callable[[Schedule, Tape], Form]
"""Runs a sampler on a tape over a schedule, and returns the sample it ends with."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """An entry of the catalogue."""

    name: str
    title: str
    """As it is written in a picture's parameters."""
    aliases: tuple[str, ...]
    """Other names it goes by, diffusers' class among them."""
    paper: str
    good_for: str
    recurrence: Recurrence


def euler(schedule: Schedule, tape: Tape) -> Form:
    """Euler's method on the probability-flow ODE, dx/dσ = (x − x̂₀)/σ.

    Karras et al. 2022 (arXiv 2206.00364), algorithm 1 without its second-order correction (lines 6 to 8); k-diffusion's
    sample_euler without churn.
    """
    x = tape.start
    for timestep, (sigma, sigma_next) in zip(schedule.timesteps, pairwise(schedule.sigmas), strict=True):
        level = Level.make(schedule.prediction, timestep=timestep, image=1.0, noise=sigma)
        x, x0 = tape.evaluate(x, at=level)
        d = (x - x0) / sigma
        x = x + (sigma_next - sigma) * d
    return x


SAMPLERS: Final[Mapping[str, Sampler]] = {
    sampler.name: sampler
    for sampler in (
        Sampler(
            name="euler",
            title="Euler",
            aliases=("EulerDiscreteScheduler",),
            paper="arXiv 2206.00364, algorithm 1",
            good_for="SDXL's own choice: plain and predictable at 20 to 50 steps, no fresh noise",
            recurrence=euler,
        ),
    )
}
"""Every sampler, by name."""


def find_sampler(name: str) -> Sampler:
    """The sampler of a name or alias, upper and lower case alike.

    Raises:
        UnknownName: there is none; names those there are and suggests the nearest.
    """
    found = _lookup(name)
    if found is None:
        raise UnknownName("sampler", name, SAMPLERS, fix="--sampler euler")
    return found


def make_table(config: Mapping[str, Any], steps: int, sampler: str | None = None) -> Table:
    """The table of a whole run.

    Args:
        config: content of scheduler_config.json.
        steps: 1 … num_train_timesteps.
        sampler: a name or alias; None takes what the config's `_class_name` names.

    Raises:
        SchedulerError: the config's class has no sampler here, or `make_schedule` refuses its options.
        UnknownName: no sampler of that name.
        UsageError: `steps` out of range.
    """
    chosen = _configured(config) if sampler is None else find_sampler(sampler)
    schedule = make_schedule(config, steps)
    tape = Tape()
    final = chosen.recurrence(schedule, tape)
    return tape.table(final, initial_scale=schedule.initial_scale, steps=len(schedule.timesteps))


def _configured(config: Mapping[str, Any]) -> Sampler:
    """The sampler that a scheduler config asks for by its class."""
    name = config.get("_class_name")
    found = _lookup(name) if isinstance(name, str) else None
    if found is None:
        raise SchedulerError(
            "there is no sampler for this model's scheduler",
            got=f"_class_name = {name!r:.100}",
            expected=", ".join(alias for entry in SAMPLERS.values() for alias in entry.aliases if "Scheduler" in alias),
            fix=f"choose one of {', '.join(SAMPLERS)}, for example --sampler euler",
        )
    return found


def _lookup(name: str) -> Sampler | None:
    wanted = name.lower()
    matches = (s for s in SAMPLERS.values() if wanted in {label.lower() for label in (s.name, s.title, *s.aliases)})
    return next(matches, None)
