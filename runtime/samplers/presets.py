"""Settings that distilled models were made for, chosen from a model's own config where nothing else is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sdxl_trt.runtime.samplers.options import SamplerOptions


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What a kind of model is run with; every entry is a default that a request may replace."""

    name: str
    steps: int
    guidance: float
    """0: guidance is off. Where the UNet has a guidance embedding, this is what it is told, and a step has one row."""
    sampler: str | None
    """None: the model's own scheduler."""
    options: SamplerOptions


_OWN: Final = SamplerOptions()
_TRAILING: Final = SamplerOptions(spacing="trailing")
_LIGHTNING_STEPS: Final = (1, 2, 4, 8)


def choose_preset(name: str, scheduler: Mapping[str, Any], *, guidance_embedding: bool) -> Preset | None:
    """The preset of a model; None where it is an ordinary one.

    A scheduler of a class that only distilled models have says so; Turbo's is Euler ancestral with trailing spacing,
    as Stability AI published it. Lightning and Hyper models say it in their names alone, and how many steps there too
    ('…_4step…').

    Args:
        name: of the model.
        scheduler: content of its scheduler_config.json.
        guidance_embedding: its UNet has one.
    """
    kind = scheduler.get("_class_name")
    if kind == "LCMScheduler" or guidance_embedding:  # arXiv 2310.04378: w between 3 and 15 in the embedding
        sampler = None if kind == "LCMScheduler" else "LCMScheduler"
        guidance = 8.0 if guidance_embedding else 0.0
        return Preset(name="lcm", steps=4, guidance=guidance, sampler=sampler, options=_OWN)
    if kind == "TCDScheduler":  # arXiv 2402.19159; γ as its authors have it
        return Preset(name="tcd", steps=4, guidance=0.0, sampler=None, options=SamplerOptions(eta=0.3))
    if kind == "EulerAncestralDiscreteScheduler" and scheduler.get("timestep_spacing") == "trailing":
        return Preset(name="turbo", steps=1, guidance=0.0, sampler=None, options=_OWN)  # arXiv 2311.17042
    lowered = name.lower()
    for brand in ("lightning", "hyper"):  # arXiv 2402.13929, arXiv 2404.13686
        if brand in lowered:
            steps = _steps(lowered)
            if brand == "hyper" and steps == 1:
                return Preset(name=brand, steps=1, guidance=0.0, sampler="tcd", options=SamplerOptions(eta=1.0))
            return Preset(name=brand, steps=steps, guidance=0.0, sampler="euler", options=_TRAILING)
    return None


def _steps(name: str) -> int:
    """As many as the name says, or 4."""
    found = re.search(r"(\d)[ _-]?steps?", name)
    return int(found[1]) if found and int(found[1]) in _LIGHTNING_STEPS else 4
