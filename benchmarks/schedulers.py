"""diffusers' schedulers, those included that need what is no dependency here.

Some need scipy or torchsde. Where these are not installed, what the schedulers call is put in their place:
Gauss–Legendre quadrature of two points (exact for the cubics of LMS), mpmath's incomplete beta function, and this
package's own Brownian path, so that all but the path itself is compared.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import sys
import types
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from typing import Any

import numpy as np

from sdxl_trt.runtime.brownian import BrownianPath

_OPTIONAL = {"DPMSolverSDEScheduler": "scheduling_dpmsolver_sde", "LMSDiscreteScheduler": "scheduling_lms_discrete"}


def scheduler_class(name: str) -> Any:
    """A class of diffusers' schedulers; diffusers itself does not offer all where scipy or torchsde is missing."""
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    if name not in _OPTIONAL:
        return getattr(importlib.import_module("diffusers"), name)
    _offer_torchsde()
    return getattr(importlib.import_module(f"diffusers.schedulers.{_OPTIONAL[name]}"), name)


def make_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """A scheduler of diffusers, with stand-ins for what it needs and is not installed."""
    scheduler = scheduler_class(name)
    module: Any = sys.modules[scheduler.__module__]
    if "scipy" not in vars(module) and hasattr(module, "is_scipy_available"):
        module.scipy = types.SimpleNamespace(stats=types.SimpleNamespace(beta=types.SimpleNamespace(ppf=beta_quantile)))
        module.integrate = types.SimpleNamespace(quad=_quad)
        module.is_scipy_available = lambda: True
    made = scheduler.from_config({**config, "use_beta_sigmas": False})
    if config.get("use_beta_sigmas"):  # some make a schedule of a thousand steps at once, which mpmath is slow at
        made.register_to_config(use_beta_sigmas=True)
    return made


def stand_ins(name: str, config: Mapping[str, Any]) -> list[str]:
    """What stands in for packages that are not installed here, in a scheduler of that class and config."""
    used = []
    if importlib.util.find_spec("scipy") is None:
        if name == "LMSDiscreteScheduler":
            used.append("scipy's quadrature: Gauss-Legendre's")
        if config.get("use_beta_sigmas"):
            used.append("scipy's beta quantiles: mpmath's")
    if name == "DPMSolverSDEScheduler" and _stands_in("torchsde"):
        used.append("torchsde's Brownian path: sdxl-trt's own, so that all but the path is compared")
    return used


@functools.cache
def beta_quantile(probability: float, a: float, b: float) -> float:
    """scipy.stats.beta.ppf, by mpmath and halving."""
    import mpmath

    if probability in (0.0, 1.0):
        return float(probability)
    low, high = mpmath.mpf(0), mpmath.mpf(1)
    for _ in range(100):
        middle = (low + high) / 2
        below = mpmath.betainc(a, b, 0, middle, regularized=True) < probability
        low, high = (middle, high) if below else (low, middle)
    return float((low + high) / 2)


def _quad(function: Callable[[float], Any], low: Any, high: Any, **_: Any) -> tuple[float, float]:
    nodes, weights = np.polynomial.legendre.leggauss(2)
    half, centre = (float(high) - float(low)) / 2, (float(high) + float(low)) / 2
    total = sum(weight * float(function(centre + half * node)) for node, weight in zip(nodes, weights, strict=True))
    return half * total, 0.0


class Interval:
    """torchsde.BrownianInterval over this package's path."""

    def __init__(self, *, t0: Any, t1: Any, size: Any, entropy: int, **_: Any) -> None:
        self.path = BrownianPath(tuple(size), lowest=float(t0), highest=float(t1), seed=entropy)

    def __call__(self, first: Any, second: Any) -> Any:
        import torch

        low, high = np.float32(float(first)), np.float32(float(second))
        return torch.from_numpy(self.path.increment(float(first), float(second)) * np.sqrt(high - low))


def _offer_torchsde() -> None:
    if _stands_in("torchsde") and "torchsde" not in sys.modules:
        module: Any = types.ModuleType("torchsde")
        module.__spec__ = ModuleSpec("torchsde", None)
        module.BrownianInterval = Interval
        sys.modules["torchsde"] = module


def _stands_in(package: str) -> bool:
    """Not installed; a module that was put in its place has no file."""
    spec = importlib.util.find_spec(package)
    return spec is None or spec.origin is None
