"""From a model's scheduler config and a request to a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from sdxl_trt.errors import SchedulerError
from sdxl_trt.runtime.samplers.base import Sampler
from sdxl_trt.runtime.samplers.catalogue import SAMPLERS, find_class, find_sampler
from sdxl_trt.runtime.samplers.options import SamplerOptions
from sdxl_trt.runtime.samplers.partial import Part
from sdxl_trt.runtime.schedules import Schedule
from sdxl_trt.runtime.table import Form, Table, Tape

_NO_OPTIONS: Final = SamplerOptions()


def make_table(
    config: Mapping[str, Any],
    steps: int,
    sampler: str | None = None,
    *,
    options: SamplerOptions = _NO_OPTIONS,
    strength: float | None = None,
    denoising_start: float | None = None,
    denoising_end: float | None = None,
) -> Table:
    """The table of a run, or of a part of it as diffusers' SDXL pipelines cut it out.

    Args:
        config: content of scheduler_config.json.
        steps: 1 … num_train_timesteps, of the whole run.
        sampler: a name, alias or class; None takes what the config's `_class_name` names.
        options: choices over what the config says.
        strength: 0 to 1; a run from an image does only this part of the steps, the last ones, and begins with the
            image under so much noise. Not read where `denoising_start` is given.
        denoising_start: 0 to 1; a run from another model's result begins at this part of training's timesteps.
        denoising_end: 0 to 1; a run ends there, and leaves the rest to another model.

    Raises:
        SchedulerError: the config's class has no sampler here, or an option that has no linear table.
        UnknownName: no sampler of that name.
        UsageError: `steps`, an option or a part that the sampler cannot do.
    """
    part = Part(strength=strength, start=denoising_start, end=denoising_end)
    chosen = _configured(config) if sampler is None else find_sampler(sampler)
    settings = chosen.scheduler.settings(config, {**chosen.overrides, **options.overrides(chosen)})
    schedule = chosen.schedule(settings, steps)
    tape, final = _record(chosen, schedule)
    first = part.first_evaluation(tape.timesteps, schedule, chosen.order)
    count = part.evaluations(tape.timesteps[first:], schedule)
    if first:
        schedule = replace(schedule, begin=first // chosen.order)
        tape, final = _record(chosen, schedule)
    image, noise = part.start_mix(schedule, tape.first_level)
    return tape.table(
        final,
        initial_image=image,
        initial_scale=noise,
        evaluations=count,
        steps=-(-count // chosen.order),
    )


def _record(sampler: Sampler, schedule: Schedule) -> tuple[Tape, Form]:
    tape = Tape()
    return tape, sampler.recurrence(schedule, tape)


def _configured(config: Mapping[str, Any]) -> Sampler:
    """The sampler that a scheduler config asks for by its class."""
    name = config.get("_class_name")
    found = find_class(name)
    if found is None:
        raise SchedulerError(
            "there is no sampler for this model's scheduler",
            got=f"_class_name = {name!r:.100}",
            expected=", ".join(dict.fromkeys(s.scheduler.name for s in SAMPLERS.values() if s.scheduler.name)),
            fix=f"choose one of {', '.join(SAMPLERS)}, for example --sampler euler",
        )
    return found
