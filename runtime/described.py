"""How a picture's file says that it was made: settings by the names that A1111's users know, ours where it has none.

None is for a setting that does not apply, or is what A1111 does by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdxl_trt.runtime.png import Parameters
from sdxl_trt.runtime.request import Request, Resolved
from sdxl_trt.runtime.results import Result
from sdxl_trt.runtime.samplers import find_sampler
from sdxl_trt.spec import ModelSpec
from sdxl_trt.spec.profile import format_size
from sdxl_trt.version import __version__

_EMPHASES = {"off": "None", "a1111": None, "a1111-no-norm": "No norm", "interpolate": "interpolate"}
"""A1111's own names where it has them; its default is not written."""
_SCHEDULE_TYPES = {
    "karras": "Karras",
    "exponential": "Exponential",
    "beta": "Beta",
    "linspace": "Uniform",
    "trailing": "SGM Uniform",
    "leading": "DDIM",
}
"""A1111's labels."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What made a picture."""

    model: ModelSpec
    target: str
    """Name of the engines."""
    refiner: ModelSpec | None
    words: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Textual inversions that were loaded, and their files as SHA-256."""


def describe(result: Result, index: int, request: Request, origin: Origin) -> Parameters:
    """What one picture of a result was made from.

    Args:
        result: that it is in.
        index: of the picture.
        request: what was asked for.
        origin: what made it.
    """
    settings = result.settings
    shown = _text_to_image(settings, result.seeds[index], origin)
    shown |= _prompts(settings, origin.words) | _pictures(settings, request) | _refiner(result.refiner, origin)
    return Parameters(prompt=settings.prompt, negative_prompt=settings.negative_prompt or "", settings=shown)


def _text_to_image(settings: Resolved, seed: int, origin: Origin) -> dict[str, Any]:
    micro, model = settings.micro, origin.model
    own = {
        "Prompt 2": settings.prompt_2 if settings.prompt_2 != settings.prompt else None,
        "Negative prompt 2": settings.negative_prompt_2,
        "Negative prompt given": "empty" if settings.negative_prompt == "" else None,
        "CFG rescale": settings.guidance_rescale or None,
        "Guidance end": settings.guidance_end if settings.guidance_end < 1 else None,
        "Original size": format_size(micro.original_size) if micro.original_size != settings.size else None,
        "Target size": format_size(micro.target_size) if micro.target_size != settings.size else None,
        "Crop top left": _corner(micro.crop_top_left),
    }
    return {
        "Steps": settings.steps,
        "Sampler": find_sampler(settings.sampler or model.scheduler["_class_name"]).title,
        "CFG scale": settings.guidance,
        "Seed": seed,
        "Size": format_size(settings.size),
        "Model hash": model.content[:10],
        "Model": model.name,
        **own,
        **_negative_sizes(settings),
        "Engines": origin.target,
        "Version": f"sdxl-trt {__version__}",
    }


def _negative_sizes(settings: Resolved) -> dict[str, Any]:
    negative = settings.negative_micro
    if negative == settings.micro:
        return {}
    return {
        "Negative original size": format_size(negative.original_size),
        "Negative target size": format_size(negative.target_size),
        "Negative crop top left": _corner(negative.crop_top_left),
    }


def _prompts(settings: Resolved, words: Mapping[str, str]) -> dict[str, Any]:
    hashes = ", ".join(f"{word}: {sha256[:10]}" for word, sha256 in words.items())
    return {
        "Emphasis": _EMPHASES[settings.weighting],
        "CLIP layers skipped": settings.clip_skip or None,
        "TI hashes": hashes or None,
    }


def _pictures(settings: Resolved, request: Request) -> dict[str, Any]:
    """A1111 takes seeds to be a GPU's, unless it reads 'RNG: CPU'."""
    chosen, padding = dataclasses.asdict(settings.options), request.mask_padding
    return {
        "Schedule type": _SCHEDULE_TYPES.get(chosen["sigmas"] or chosen["spacing"]),
        "Sampler options": " ".join(f"{k}={v}" for k, v in chosen.items() if v is not None) or None,
        "RNG": "CPU" if settings.rng == "cpu" else None,
        "Denoising strength": settings.strength,
        "Mask blur": request.mask_blur or None,
        "Mask mode": "Inpaint not masked" if request.mask_invert else None,
        "Soft inpainting": True if request.mask_soft else None,
        "Inpaint area": None if padding is None else "Only masked",
        "Masked area padding": padding,
        "VAE tile": settings.vae_tile,
    }


def _refiner(settings: Resolved | None, origin: Origin) -> dict[str, Any]:
    model = origin.refiner
    if settings is None or model is None:
        return {}
    return {
        "Refiner": f"{model.name} [{model.content[:10]}]",
        "Refiner switch at": settings.denoising_start,
        "Refiner strength": settings.strength,
        "Refiner steps": settings.steps,
        "Refiner sampler": find_sampler(settings.sampler or model.scheduler["_class_name"]).title,
        "Refiner CFG scale": settings.guidance,
        "Aesthetic score": settings.micro.aesthetic_score,
        "Negative aesthetic score": settings.negative_micro.aesthetic_score,
    }


def _corner(corner: tuple[int, int]) -> str | None:
    return f"{corner[0]},{corner[1]}" if any(corner) else None
