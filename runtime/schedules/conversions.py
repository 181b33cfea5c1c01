"""σ spaced otherwise than the timesteps are: Karras, exponential, beta and Lu; and the timestep of any σ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.schedules.quantiles import symmetric_beta_quantiles

Sigmas = NDArray[np.float64]

_RHO = 7.0  # arXiv 2206.00364, table 1
_BETA = 0.6  # arXiv 2407.12173, section 4


def conversion(settings: Mapping[str, Any]) -> str | None:
    """Which of them the settings ask for."""
    names = ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "lu_lambdas")
    return next((name for name in names if settings[f"use_{name}"]), None)


def convert(kind: str, settings: Mapping[str, Any], *, highest: float, lowest: float, count: int) -> Sigmas:
    """σ from the highest to the lowest, float64 [count]; sigma_max and sigma_min of the settings come first."""
    if kind == "lu_lambdas":  # equal steps of λ; the config's own limits are not asked
        return np.exp(_powers(math.log(highest), math.log(lowest), count, 1.0))
    lowest = settings["sigma_min"] if settings["sigma_min"] is not None else lowest
    highest = settings["sigma_max"] if settings["sigma_max"] is not None else highest
    if kind == "karras_sigmas":
        return _powers(highest, lowest, count, _RHO)
    if kind == "exponential_sigmas":
        return np.exp(np.linspace(math.log(highest), math.log(lowest), count))
    quantiles = symmetric_beta_quantiles(1 - np.linspace(0, 1, count), _BETA)
    return lowest + quantiles * (highest - lowest)


def _powers(highest: float, lowest: float, count: int, rho: float) -> Sigmas:
    """Equal steps of the ρ-th root; arXiv 2206.00364, equation 5."""
    last, first = lowest ** (1 / rho), highest ** (1 / rho)
    spaced: Sigmas = (first + np.linspace(0, 1, count) * (last - first)) ** rho
    return spaced


def sigmas_to_timesteps(sigmas: Sigmas, trained: NDArray[Any]) -> Sigmas:
    """The timesteps at which log σ, taken linearly between training timesteps, is as given; float64 [n].

    Args:
        sigmas: [n]; below the range gives 0, above it the last training timestep.
        trained: σ of every training timestep, ascending; float32, for diffusers' own rounding.
    """
    known = np.log(trained)
    log_sigmas = np.log(np.maximum(sigmas, 1e-10))
    low = np.clip(np.searchsorted(known, log_sigmas, side="right") - 1, 0, len(known) - 2)
    weight = np.clip((known[low] - log_sigmas) / (known[low] - known[low + 1]), 0, 1)
    timesteps: Sigmas = (1 - weight) * low + weight * (low + 1)
    return timesteps
