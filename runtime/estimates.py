"""Which memory policy fits, by `sdxl_trt.planning`'s estimates of the engines that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdxl_trt.bundle import EngineEntry
from sdxl_trt.planning import Memory, ModelCosts, Refined, Request, choose, components, policies, scratch_of
from sdxl_trt.spec import LATENT_SCALE, ModelSpec, Profile

Opened = Sequence[tuple[ModelSpec, Mapping[str, EngineEntry]]]
"""A model and its engines; and a refiner and its."""


def first_that_fits(profile: Profile, models: Opened, free: int, able: Sequence[str], *, reserve: int) -> Memory | None:
    """The first of some policies that fits, at the engines' largest shapes, and what it comes to.

    Args:
        profile: the shapes that they take.
        models: what is opened.
        free: bytes of the GPU.
        able: policies that these engines can do, in their order.
        reserve: bytes of those that are free, which are not for engines.

    Returns:
        None where an engine is older than such figures.

    Raises:
        OutOfMemory: none fits.
    """
    costs = [_costs(model, engines) for model, engines in models]
    known = [each for each in costs if each]
    if len(known) < len(costs):
        return None
    size = (profile.width.max * LATENT_SCALE, profile.height.max * LATENT_SCALE)
    options = [Refined(base=known[0], refiner=each) for each in known[1:]]
    found = components(known[0], Request(size=size, steps=30, batch=profile.slots.max), options)
    available = free - reserve
    possible = [each for each in policies(found, available) if each.policy in able and each.fits(available)]
    return possible[0] if possible else choose(found, available, able[-1], reserve=reserve)  # which says what would fit


def _costs(model: ModelSpec, engines: Mapping[str, EngineEntry]) -> ModelCosts | None:
    works = {name: entry.work for name, entry in engines.items() if entry.work}
    if len(works) < len(engines):
        return None
    return ModelCosts(model=model, works=works, files=0, scratch=scratch_of(engines))
