"""The catalogue: every sampler with its names, its paper and what it is good for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from sdxl_trt.errors import UnknownName
from sdxl_trt.runtime.samplers.base import Sampler, sigmas_spaced
from sdxl_trt.runtime.samplers.general import GENERAL
from sdxl_trt.runtime.samplers.special import SPECIAL

_ENTRIES: Final = (*GENERAL, *SPECIAL)

SAMPLERS: Final[Mapping[str, Sampler]] = {sampler.name: sampler for sampler in _ENTRIES}
"""Every sampler, by name."""

_ENDINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "Karras": sigmas_spaced("karras"),
    "Exponential": sigmas_spaced("exponential"),
    "Beta": sigmas_spaced("beta"),
    "SGM Uniform": {"timestep_spacing": "trailing"},
}


def find_sampler(name: str) -> Sampler:
    """The sampler of a name, a title, an alias or a class of diffusers; case, spaces, _ and - are all one.

    A name may end in Karras, Exponential, Beta or SGM Uniform, as in "DPM++ 2M Karras", where the sampler has these.
    A name of diffusers' class leaves all options to the model's config; other names set those that make the sampler.

    Raises:
        UnknownName: there is none; names those there are and suggests the nearest.
    """
    found = _NAMES.get(_plain(name))
    if found is None:
        raise UnknownName("sampler", name, SAMPLERS, fix="--sampler euler; `sdxl-trt samplers` lists all names")
    return found


def find_class(name: object) -> Sampler | None:
    """The sampler that a class of diffusers is, as the config has it."""
    matches = (sampler for sampler in _ENTRIES if sampler.scheduler.name == name and name)
    found = next(matches, None)
    return None if found is None else found.configured()


def variants(sampler: Sampler) -> dict[str, Sampler]:
    """A sampler with σ or timesteps spaced otherwise, by what its names then end in."""
    made = {}
    for ending, options in _ENDINGS.items():
        if options.keys() <= sampler.scheduler.defaults.keys():
            overrides = {**sampler.overrides, **options}
            made[ending] = replace(sampler, title=f"{sampler.title} {ending}", aliases=(), overrides=overrides)
    return made


def _plain(name: str) -> str:
    """A name as it is compared."""
    return "".join(letter for letter in name.lower().replace("++", "pp") if letter.isalnum())


def _names() -> dict[str, Sampler]:
    names: dict[str, Sampler] = {}
    for sampler in _ENTRIES:
        titles = (sampler.name, sampler.title, *sampler.aliases)
        names |= {_plain(title): sampler for title in titles}
        for ending, variant in variants(sampler).items():
            names |= {_plain(title + ending): variant for title in titles}
    classes = {_plain(sampler.scheduler.name): find_class(sampler.scheduler.name) for sampler in _ENTRIES}
    return names | {name: sampler for name, sampler in classes.items() if sampler is not None}


_NAMES: Final = _names()
