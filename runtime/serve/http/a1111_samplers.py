"""A1111's samplers and schedulers by its names, and what they are here.

Sources: modules/sd_samplers_kdiffusion.py, sd_samplers.py (get_sampler_and_scheduler) and sd_schedulers.py of
AUTOMATIC1111/stable-diffusion-webui 1.10.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from sdxl_trt.errors import UnknownName
from sdxl_trt.runtime.samplers import SAMPLERS, Preset, Sampler, SamplerOptions, choose_preset, find_sampler
from sdxl_trt.runtime.serve.http.a1111_models import unsupported
from sdxl_trt.spec import ModelSpec

_NONE: Final = SamplerOptions()


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How noise levels are spaced."""

    name: str
    label: str
    options: SamplerOptions = _NONE
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        """All that it may be called, in small letters."""
        return {each.lower() for each in (self.name, self.label, *self.aliases)}


AUTOMATIC: Final = Schedule(name="automatic", label="Automatic")
_LINSPACE: Final = SamplerOptions(spacing="linspace")
_TRAILING: Final = SamplerOptions(spacing="trailing")
_EXPONENTIAL: Final = SamplerOptions(sigmas="exponential")
SCHEDULES: Final = (
    AUTOMATIC,
    Schedule(name="uniform", label="Uniform", options=_LINSPACE),
    Schedule(name="karras", label="Karras", options=SamplerOptions(sigmas="karras")),
    Schedule(name="exponential", label="Exponential", options=_EXPONENTIAL),
    Schedule(name="polyexponential", label="Polyexponential", options=_EXPONENTIAL),  # its ρ is 1 unless set otherwise
    Schedule(name="sgm_uniform", label="SGM Uniform", options=_TRAILING, aliases=("SGMUniform",)),
    Schedule(name="simple", label="Simple", options=_TRAILING),
    Schedule(name="normal", label="Normal", options=_LINSPACE),
    Schedule(name="ddim", label="DDIM", options=SamplerOptions(spacing="leading", steps_offset=1)),
    Schedule(name="beta", label="Beta", options=SamplerOptions(sigmas="beta")),
)
_BY_NAME: Final = {schedule.name: schedule for schedule in SCHEDULES}
_CHOSEN: Final = {
    "euler": "uniform",
    "euler_a": "uniform",
    "heun": "uniform",
    "lms": "uniform",
    "dpm2": "karras",
    "dpm2_a": "karras",
    "dpmpp_2m": "karras",
    "dpmpp_2s_a": "karras",
    "dpmpp_sde": "karras",
    "dpmpp_2m_sde": "exponential",
    "dpmpp_3m_sde": "exponential",
}
"""What 'automatic' is in A1111, by sampler. Others have their own spacing there, and the model's here."""
_FRESH: Final = ("euler_a", "dpm2_a", "dpmpp_2s_a", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde")
"""Samplers whose eta, the amount of fresh noise, is 1 in A1111 unless set."""


def choose_sampler(
    name: str | None, scheduler: str | None, eta: float | None, model: ModelSpec
) -> tuple[str | None, SamplerOptions]:
    """The sampler of a request, and its options.

    Args:
        name: of the sampler; may end in a scheduler's, as in "DPM++ 2M Karras". None: the model's own.
        scheduler: its name or label; None: 'automatic', which is what A1111 takes for the sampler then, but the model's
            own where it is a distilled one or no sampler is named.
        eta: amount of fresh noise; None: the sampler's own.
        model: of the bundle.

    Raises:
        UnknownName: there is no such sampler or scheduler.
        HttpError: two schedulers, or an eta that the sampler does not have.
    """
    preset = choose_preset(model.name, model.scheduler, guidance_embedding=bool(model.unet.guidance_embedding))
    base, ending = _split(name or "")
    base, options = _without_heun(base)
    sampler = find_sampler(base or (preset and preset.sampler) or str(model.scheduler.get("_class_name")))
    schedule = _one_of(ending, find_schedule(scheduler or AUTOMATIC.name))
    if preset and not base:
        options = preset.options
    options = _merged(options, _spacing(sampler, schedule, preset, named=bool(base)))
    return base or None, replace(options, eta=options.eta if eta is None else _eta(sampler, eta))


def find_schedule(name: str) -> Schedule:
    """A scheduler by its name, label or alias.

    Raises:
        UnknownName: there is none that is known here.
    """
    found = next((schedule for schedule in SCHEDULES if name.lower() in schedule.names), None)
    if found is None:
        raise UnknownName("scheduler", name, _BY_NAME)
    return found


def listed_samplers() -> list[dict[str, Any]]:
    """As /sdapi/v1/samplers has them."""
    return [
        {
            "name": sampler.title,
            "aliases": [sampler.name, *sampler.aliases],
            "options": {"scheduler": _CHOSEN[sampler.name]} if sampler.name in _CHOSEN else {},
        }
        for sampler in SAMPLERS.values()
    ]


def listed_schedulers() -> list[dict[str, Any]]:
    """As /sdapi/v1/schedulers has them."""
    return [
        {
            "name": schedule.name,
            "label": schedule.label,
            "aliases": list(schedule.aliases) or None,
            "default_rho": {"karras": 7.0, "polyexponential": 1.0}.get(schedule.name, -1.0),
            "need_inner_model": schedule.options.spacing is not None,
        }
        for schedule in SCHEDULES
    ]


def _split(name: str) -> tuple[str, Schedule]:
    """A sampler's name, and the scheduler that it ends in."""
    for schedule in SCHEDULES:
        for ending in schedule.names:
            if name.lower().endswith(" " + ending):
                return name[: -len(ending) - 1], schedule
    return name, AUTOMATIC


def _without_heun(name: str) -> tuple[str, SamplerOptions]:
    """A sampler's name here, and what it has to be told where A1111 has another name for that."""
    heun = name.lower().endswith(" sde heun")
    return (name[: -len(" heun")], SamplerOptions(solver="heun")) if heun else (name, SamplerOptions())


def _one_of(ending: Schedule, asked: Schedule) -> Schedule:
    if AUTOMATIC not in (ending, asked) and ending is not asked:
        raise unsupported("scheduler", asked.label, f"{ending.label}, in which sampler_name ends, or none")
    return asked if ending is AUTOMATIC else ending


def _spacing(sampler: Sampler, schedule: Schedule, preset: Preset | None, *, named: bool) -> SamplerOptions:
    """Options of a schedule; where it is 'automatic', those of the one that is chosen for the sampler."""
    has = sampler.scheduler.defaults
    options = schedule.options
    if schedule is AUTOMATIC and preset:
        options = SamplerOptions(spacing=preset.options.spacing if "timestep_spacing" in has else None)
    elif schedule is AUTOMATIC and named:
        options = _BY_NAME[_CHOSEN.get(sampler.name, AUTOMATIC.name)].options
    trained = options.spacing and "use_karras_sigmas" in has  # whatever the model's config says
    return replace(options, sigmas="trained") if trained else options


def _merged(options: SamplerOptions, more: SamplerOptions) -> SamplerOptions:
    chosen = {name: value for name, value in vars(more).items() if value is not None}
    return replace(options, **chosen)


def _eta(sampler: Sampler, eta: float | None) -> float | None:
    """As an option; None where the sampler has what is asked for anyway."""
    if eta is None or "eta" in sampler.scheduler.defaults:
        return eta
    neutral = (1.0,) if sampler.name in _FRESH else (0.0, 1.0)
    if eta not in neutral:
        raise unsupported("eta", eta, " or ".join(map(str, neutral)) + f" with {sampler.title}")
    return None
