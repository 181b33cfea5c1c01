"""What a sampler is: a schedule, a recurrence over it, and the diffusers class whose options both read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sdxl_trt.runtime.schedules import Schedule, Settings, read_settings
from sdxl_trt.runtime.table import Form, Tape

Recurrence = Callable[[Schedule, Tape], Form]
"""Runs a sampler on a tape over a schedule, and returns the sample it ends with."""

ScheduleMaker = Callable[[Settings, int], Schedule]
"""Makes the schedule of so many steps."""


@dataclass(frozen=True, kw_only=True)
class SchedulerClass:
    """A scheduler of diffusers 0.42, as far as its config is concerned."""

    name: str
    defaults: Mapping[str, Any]
    """Every option that its class has, and no other, with the class's own default."""
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Values of options that are not the same for all classes."""
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Values that configs of other classes have, and what this class takes them for."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """What the class does without being asked."""

    def settings(self, config: Mapping[str, Any], overrides: Mapping[str, Any]) -> Settings:
        """Options from a config, checked; `overrides` come first.

        Raises:
            SchedulerError: an option that has no linear table, is not supported or not known, or cannot be used.
        """
        return read_settings(config, self.defaults, self.choices, self.renamed, {**self.fixed, **overrides})


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """An entry of the catalogue."""

    name: str
    title: str
    """As it is written in a picture's parameters."""
    aliases: tuple[str, ...]
    """Other names it goes by, beside diffusers' class."""
    paper: str
    good_for: str
    scheduler: SchedulerClass
    recurrence: Recurrence
    schedule: ScheduleMaker
    order: int = 1
    """Evaluations per step, the last step excepted."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Options of the class that make it this sampler, whatever the config says."""
    differs: str = ""
    """Where diffusers' equivalent, which this is, is not what k-diffusion has under the name."""

    def configured(self) -> Sampler:
        """The same as the config has it, as for who names diffusers' class."""
        return replace(self, overrides={})


TRAINED: Final[Mapping[str, Any]] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
}
"""How the model was trained, and which timesteps it visits. Zero terminal SNR is the model's: it holds for every
sampler here, while some of diffusers' classes do not know it."""

K_TRAINED: Final[Mapping[str, Any]] = {**TRAINED, "beta_start": 0.00085, "beta_end": 0.012}
"""The same for those of diffusers' classes whose betas are Stable Diffusion's."""

EDM_TRAINED: Final[Mapping[str, Any]] = {
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "rho": 7.0,
    "final_sigmas_type": "zero",
}
"""Of networks that are told the noise level itself (arXiv 2206.00364), with its schedule."""

CONVERTED: Final[Mapping[str, Any]] = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "sigma_min": None,
    "sigma_max": None,
}
"""σ spaced otherwise than timesteps are."""


def sigmas_spaced(how: str) -> dict[str, Any]:
    """Options for σ spaced in one of these ways; 'trained' is none of them."""
    return {f"use_{kind}_sigmas": kind == how for kind in ("karras", "exponential", "beta")}
