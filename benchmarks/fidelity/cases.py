"""What is compared: every sampler with every spacing, prediction and task that diffusers has for its class."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from benchmarks.fidelity.models import SDXL
from sdxl_trt.runtime.samplers import SAMPLERS, Sampler, SamplerOptions

STEPS: Final = 20
TASKS: Final = ("text", "image", "inpaint", "ensemble")
PREDICTIONS: Final = ("epsilon", "v_prediction", "sample")
SEED_OF_PATH: Final = 42
"""Of the Brownian path, where there is one."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way of spacing, in our options and in diffusers' own."""

    name: str
    ours: dict[str, Any]
    config: dict[str, Any]
    """Entries of the scheduler's config."""
    arguments: dict[str, Any]
    """Of the call of diffusers' pipeline."""
    predictions: tuple[str, ...] = PREDICTIONS


def _variant(name: str, ours: dict[str, Any], config: dict[str, Any] | None = None, **arguments: Any) -> Variant:
    return Variant(name=name, ours=ours, config=config or {}, arguments=arguments)


SPACED: Final = tuple(
    _variant(spacing, {"spacing": spacing}, {"timestep_spacing": spacing})
    for spacing in ("linspace", "leading", "trailing")
)
OWN: Final = _variant("its own", {})
"""Of classes that space timesteps in one way only."""
SPACES_ONE_WAY: Final = {
    "lcm": "LCMScheduler takes its timesteps from those of distillation, whatever timestep_spacing says",
    "tcd": "TCDScheduler takes its timesteps from those of distillation, whatever timestep_spacing says",
}
OTHERS: Final = (
    *(
        _variant(sigmas, {"sigmas": sigmas}, {f"use_{sigmas}_sigmas": True})
        for sigmas in ("karras", "exponential", "beta")
    ),
    _variant("to sigma_min", {"final_sigmas": "sigma_min"}, {"final_sigmas_type": "sigma_min"}),
    Variant(
        name="zero SNR",
        ours={"zero_snr": True, "spacing": "trailing"},
        config={"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
        arguments={},
        predictions=("v_prediction", "sample"),
    ),
)
ETAS: Final = {"ddim": 1.0, "tcd": 0.3}
"""Samplers whose fresh noise can be chosen, and how much of it one of the rows has."""
EDM_ENSEMBLE: Final = "an ensemble is cut at training's timesteps, and a model trained on σ itself has none"
ZERO_SNR_EPSILON: Final = (
    "a model that predicts noise cannot begin at noise alone: sdxl-trt refuses it, diffusers divides by nearly zero"
)
NO_SUCH_CLASS: Final = (
    "diffusers has no such sampler; k-diffusion's agrees (tests/runtime/test_k_diffusion.py), and the error on data "
    "whose solution is known falls with steps by the sampler's order (tests/runtime/test_convergence.py)"
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison."""

    sampler: Sampler
    variant: Variant
    prediction: str
    task: str

    def __str__(self) -> str:
        return f"{self.sampler.name}, {self.variant.name}, {self.prediction}, {self.task}"

    @property
    def options(self) -> SamplerOptions:
        """What our side is asked for."""
        return SamplerOptions(prediction=self.prediction, **self.variant.ours, **self._path)

    @property
    def config(self) -> dict[str, Any]:
        """The config of diffusers' scheduler: SDXL's with what the sampler, the variant and the prediction change."""
        own = {"_class_name": self.sampler.scheduler.name, "prediction_type": self.prediction}
        return {**SDXL, **self.sampler.overrides, **self.variant.config, **self._path, **own}

    @property
    def _path(self) -> dict[str, Any]:
        return {"noise_sampler_seed": SEED_OF_PATH} if self.sampler.name == "dpmpp_sde" else {}


@dataclass(frozen=True, kw_only=True)
class Absence:
    """What there is nothing to compare with."""

    sampler: str
    variant: str
    predictions: tuple[str, ...]
    tasks: tuple[str, ...]
    reason: str


def cases() -> Iterator[Case]:
    """Every case, in the order of the catalogue; what a class refuses only when it runs is still among them."""
    for sampler in SAMPLERS.values():
        for variant in variants(sampler):
            for prediction in variant.predictions:
                for task in TASKS:
                    if not (task == "ensemble" and is_edm(sampler)):
                        yield Case(sampler=sampler, variant=variant, prediction=prediction, task=task)


def variants(sampler: Sampler) -> list[Variant]:
    """Those that a sampler's class in diffusers has."""
    if not sampler.scheduler.name:
        return []
    eta = ETAS.get(sampler.name)
    spaced = SPACED if _missing(sampler, SPACED[0]) is None else (OWN,)
    others = [variant for variant in OTHERS if _missing(sampler, variant) is None]
    return [*spaced, *others, *([_variant(f"eta {eta:g}", {"eta": eta}, eta=eta)] if eta else [])]


def absences() -> Iterator[Absence]:
    """What diffusers does not have by the look of its classes."""
    yield Absence(sampler="all", variant="zero SNR", predictions=("epsilon",), tasks=TASKS, reason=ZERO_SNR_EPSILON)
    for sampler in SAMPLERS.values():
        if not sampler.scheduler.name:
            yield Absence(
                sampler=sampler.name, variant="all", predictions=PREDICTIONS, tasks=TASKS, reason=NO_SUCH_CLASS
            )
            continue
        for variant in (*SPACED, *OTHERS):
            reason = _missing(sampler, variant)
            if reason:
                yield Absence(
                    sampler=sampler.name,
                    variant=variant.name,
                    predictions=variant.predictions,
                    tasks=TASKS,
                    reason=reason,
                )
        if is_edm(sampler):
            yield Absence(
                sampler=sampler.name, variant="all", predictions=PREDICTIONS, tasks=("ensemble",), reason=EDM_ENSEMBLE
            )


def is_edm(sampler: Sampler) -> bool:
    """It is for models that are told σ."""
    return sampler.scheduler.name.startswith("EDM")


def _missing(sampler: Sampler, variant: Variant) -> str | None:
    """Why a class has no such variant; None where it has."""
    if "timestep_spacing" in variant.config and sampler.name in SPACES_ONE_WAY and len(variant.config) == 1:
        return SPACES_ONE_WAY[sampler.name]
    absent = variant.config.keys() - _options(sampler.scheduler.name)
    return f"{sampler.scheduler.name} has no option for it" if absent else None


@cache
def _options(name: str) -> frozenset[str]:
    """Names of the options of a class of diffusers."""
    import diffusers

    return frozenset(inspect.signature(getattr(diffusers, name).__init__).parameters)
