"""What a caller may choose about a sampler, over what the model's config says."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime.samplers.base import Sampler, sigmas_spaced

_SWITCH: Final = (False, True)
_VALUES: Final[dict[str, tuple[Any, ...]]] = {
    "spacing": ("linspace", "leading", "trailing"),
    "sigmas": ("trained", "karras", "exponential", "beta"),
    "prediction": ("epsilon", "v_prediction", "sample"),
    "solver_order": (1, 2, 3),
    "zero_snr": _SWITCH,
    "final_sigmas": ("zero", "sigma_min"),
    "lower_order_final": _SWITCH,
    "euler_at_final": _SWITCH,
    "algorithm": ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"),
    "solver": ("midpoint", "heun", "bh1", "bh2"),
}
_ENTRIES: Final = {
    "spacing": "timestep_spacing",
    "prediction": "prediction_type",
    "zero_snr": "rescale_betas_zero_snr",
    "final_sigmas": "final_sigmas_type",
    "algorithm": "algorithm_type",
    "solver": "solver_type",
}
"""Names of diffusers, where they are not ours."""


@dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """Choices; None leaves one to the sampler's name and the model's config."""

    spacing: str | None = None
    """Of timesteps: 'linspace', 'leading' or 'trailing' ('SGM uniform')."""
    sigmas: str | None = None
    """How σ are spaced: 'trained' (as the timesteps), 'karras', 'exponential' or 'beta'."""
    prediction: str | None = None
    """What the network gives: 'epsilon', 'v_prediction' or 'sample'."""
    eta: float | None = None
    """0 to 1: fresh noise of DDIM, and γ of TCD; 0 in both if not given."""
    solver_order: int | None = None
    """1 to 3, of DPM-Solver, DEIS and UniPC."""
    zero_snr: bool | None = None
    """Betas are rescaled so that the last level of training is noise alone."""
    final_sigmas: str | None = None
    """Where a run ends: 'zero', or 'sigma_min', the smallest σ of training."""
    lower_order_final: bool | None = None
    """The last steps of few are of lower order."""
    euler_at_final: bool | None = None
    """The last step is of first order, of however many."""
    algorithm: str | None = None
    """'dpmsolver++', 'dpmsolver', 'sde-dpmsolver++' or 'sde-dpmsolver'."""
    solver: str | None = None
    """'midpoint' or 'heun' of DPM-Solver, 'bh1' or 'bh2' of UniPC."""
    steps_offset: int | None = None
    """Added to timesteps of 'leading' spacing."""
    noise_sampler_seed: int | None = None
    """Of the Brownian path of DPM++ SDE."""

    def __post_init__(self) -> None:
        """Refuse a value that no sampler takes.

        Raises:
            UsageError: there is one.
        """
        for name, values in _VALUES.items():
            value = getattr(self, name)
            if value is not None and not any(value == each and type(value) is type(each) for each in values):
                raise _unusable(name, value, " or ".join(map(str, values)), f"{name}={values[0]}")
        if self.eta is not None and not (isinstance(self.eta, int | float) and 0 <= self.eta <= 1):
            raise _unusable("eta", self.eta, "a number from 0 to 1", "eta=0")
        for name, most in (("steps_offset", 100_000), ("noise_sampler_seed", 2**63 - 1)):
            number = getattr(self, name)
            if number is not None and not (type(number) is int and 0 <= number <= most):
                raise _unusable(name, number, f"an integer from 0 to {most}", f"{name}=0")

    def overrides(self, sampler: Sampler) -> dict[str, Any]:
        """The choices as options of a sampler's class.

        Raises:
            UsageError: the sampler has no such option.
        """
        chosen: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            options = sigmas_spaced(value) if field.name == "sigmas" else {_ENTRIES.get(field.name, field.name): value}
            if not options.keys() <= sampler.scheduler.defaults.keys():
                raise UsageError(
                    f"the sampler {sampler.title} has no option {field.name}",
                    got=f"{field.name}={value}",
                    expected=f"options that it has: {', '.join(_names(sampler))}",
                    fix=f"leave {field.name} out, or choose another sampler",
                )
            chosen |= options
        return chosen


def _names(sampler: Sampler) -> list[str]:
    """Options of ours that a sampler has."""
    names = {field.name: _ENTRIES.get(field.name, field.name) for field in dataclasses.fields(SamplerOptions)}
    names["sigmas"] = "use_karras_sigmas"
    return [name for name, entry in names.items() if entry in sampler.scheduler.defaults]


def _unusable(name: str, value: object, expected: str, fix: str) -> UsageError:
    return UsageError(f"the sampler option {name} cannot be used", got=f"{value!r:.80}", expected=expected, fix=fix)
