"""A request made whole for a model: every value checked, every default filled in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime.checks import (
    Pair,
    check_integer,
    check_number,
    check_optional_text,
    check_pair,
    check_seeds,
    check_size,
    check_text,
)
from sdxl_trt.runtime.guidance import check_guidance
from sdxl_trt.runtime.inputs import INPAINTING_STRENGTH, STRENGTH, Input, read_input
from sdxl_trt.runtime.noise import RNGS
from sdxl_trt.runtime.prompts.embeds import check_embeds
from sdxl_trt.runtime.prompts.emphasis import check_weighting
from sdxl_trt.runtime.prompts.layers import check_clip_skip
from sdxl_trt.runtime.request import MicroConditions, Request, Resolved
from sdxl_trt.runtime.samplers import Preset, SamplerOptions, choose_preset
from sdxl_trt.runtime.tiling import choose_tile
from sdxl_trt.spec import LATENT_SCALE, ModelSpec, Profile
from sdxl_trt.spec.graphs import LATENT_CHANNELS

_DEFAULT_STEPS = 30
_DEFAULT_GUIDANCE = 5.0


def resolve(request: Request, model: ModelSpec, profile: Profile, *, images: int | None = None) -> Resolved:
    """Check a request and fill in its defaults.

    Args:
        request: what was asked for.
        model: gives the native size.
        profile: gives the sizes that the engines take.
        images: how many there must be, where something else than the seeds says so.

    Raises:
        UsageError: the first value that cannot be used.
    """
    preset = choose_preset(model.name, model.scheduler, guidance_embedding=bool(model.unet.guidance_embedding))
    asked = None if request.size is None else check_pair("size", request.size, least=1)
    given, size = read_input(replace(request, size=asked), _default_size(model, profile), profile)
    if model.unet.channels != LATENT_CHANNELS and (given is None or given.mask is None):
        raise UsageError(
            f"{model.name} is an inpainting model",
            got="no mask",
            expected="a picture and a mask, which its UNet sees",
            fix="give image and mask; or take a model that is not for inpainting",
        )
    if model.kind == "refiner" and given is None:
        raise UsageError(
            f"{model.name} is a refiner",
            got="no image",
            expected="a picture, or a base model's latents",
            fix="image=base(prompt, denoising_end=0.8, output='latents').latents, denoising_start=0.8",
        )
    micro, negative_micro = _micro_conditions(request, size, refiner=model.kind == "refiner")
    texts, negative_texts = (request.prompt, request.prompt_2), (request.negative_prompt, request.negative_prompt_2)
    prompt_embeds = check_embeds("prompt", request.prompt_embeds, texts, model, profile)
    prompt = check_text("prompt", request.prompt) if prompt_embeds is None else ""
    if given is not None and given.latents is not None and len(given.latents) > 1:
        images = len(given.latents)
    steps, guidance = _effort(request, preset)
    sampler, options = _sampler(request, preset)
    return Resolved(
        prompt=prompt,
        prompt_2=check_optional_text("prompt_2", request.prompt_2) or prompt,
        negative_prompt=check_optional_text("negative_prompt", request.negative_prompt),
        negative_prompt_2=check_optional_text("negative_prompt_2", request.negative_prompt_2),
        prompt_embeds=prompt_embeds,
        negative_prompt_embeds=check_embeds(
            "negative_prompt", request.negative_prompt_embeds, negative_texts, model, profile
        ),
        weighting=check_weighting(request.weighting),
        clip_skip=check_clip_skip(request.clip_skip, model),
        steps=check_integer("steps", steps, least=1),
        guidance=check_guidance(guidance, bool(model.unet.guidance_embedding)),
        guidance_end=check_number("guidance_end", request.guidance_end, most=1.0),
        guidance_rescale=check_number("guidance_rescale", request.guidance_rescale, most=1.0),
        seeds=check_seeds(request.seed, images),
        size=size,
        sampler=sampler,
        options=options,
        rng=_rng(request.rng),
        given=given,
        strength=_strength(request, given),
        denoising_start=request.denoising_start,
        denoising_end=request.denoising_end,
        vae_tile=choose_tile(request.vae_tiling, request.vae_tile, size, model.vae, profile),
        micro=micro,
        negative_micro=negative_micro,
        guidance_embedded=bool(model.unet.guidance_embedding),
    )


def _effort(request: Request, preset: Preset | None) -> tuple[int, float | Sequence[float]]:
    """Steps and guidance: those asked for, else the preset's, else the defaults."""
    steps, guidance = (preset.steps, preset.guidance) if preset else (_DEFAULT_STEPS, _DEFAULT_GUIDANCE)
    return (
        steps if request.steps is None else request.steps,
        guidance if request.guidance is None else request.guidance,
    )


def _sampler(request: Request, preset: Preset | None) -> tuple[str | None, SamplerOptions]:
    """The sampler asked for with its options; else the preset's, and its options where none are asked for."""
    name = check_optional_text("sampler", request.sampler)
    check_options("options", request.options)
    if name is not None or preset is None:
        return name, request.options
    return preset.sampler, preset.options if request.options == SamplerOptions() else request.options


def check_options(name: str, options: object) -> SamplerOptions:
    """Options of a sampler."""
    if not isinstance(options, SamplerOptions):
        raise UsageError(
            f"{name} cannot be used",
            got=f"{options!r:.80}",
            expected="SamplerOptions",
            fix="SamplerOptions(sigmas='karras')",
        )
    return options


def _strength(request: Request, given: Input | None) -> float | None:
    """How much of a run from an input is done; None where it starts from noise, or goes on from another run."""
    if given is None or request.denoising_start is not None:
        return None
    if request.strength is not None:
        return check_number("strength", request.strength, most=1.0)
    return STRENGTH if given.mask is None else INPAINTING_STRENGTH


def _rng(name: object) -> str:
    if name not in RNGS:
        raise UsageError("rng cannot be used", got=f"{name!r:.80}", expected=" or ".join(RNGS), fix='rng="cpu"')
    return str(name)


def _default_size(model: ModelSpec, profile: Profile) -> Pair:
    """(width, height) in pixels where none is asked for: the model's own, or what the engines are best at."""
    latent = tuple(edge // LATENT_SCALE for edge in model.native_size)
    if all(r.min <= edge <= r.max for edge, r in zip(latent, (profile.width, profile.height), strict=True)):
        return model.native_size
    return profile.width.opt * LATENT_SCALE, profile.height.opt * LATENT_SCALE


def _micro_conditions(request: Request, size: Pair, *, refiner: bool) -> tuple[MicroConditions, MicroConditions]:
    """The prompt's and the negative prompt's."""
    score, negative_score = (
        check_number(name, getattr(request, name), most=10.0) if refiner else None
        for name in ("aesthetic_score", "negative_aesthetic_score")
    )
    micro = MicroConditions(
        original_size=check_size("original_size", request.original_size, size),
        crop_top_left=check_pair("crop_top_left", request.crop_top_left, least=0),
        target_size=check_size("target_size", request.target_size, size),
        aesthetic_score=score,
    )
    negative = MicroConditions(
        original_size=check_size("negative_original_size", request.negative_original_size, size),
        crop_top_left=check_pair("negative_crop_top_left", request.negative_crop_top_left, least=0),
        target_size=check_size("negative_target_size", request.negative_target_size, size),
        aesthetic_score=negative_score,
    )
    own = request.negative_original_size is not None and request.negative_target_size is not None
    return micro, negative if own else replace(micro, aesthetic_score=negative_score)


def check_noise(noise: NDArray[Any], settings: Resolved) -> NDArray[np.float32]:
    """A caller's own starting noise as float32 [N, 4, h, w], one for each seed.

    Raises:
        UsageError: another shape, not real numbers, or not finite.
    """
    shape = (len(settings.seeds), *settings.latent_shape)
    real = isinstance(noise, np.ndarray) and noise.dtype.kind == "f"
    if not real or noise.shape != shape or not np.isfinite(noise).all():
        raise UsageError(
            "this noise cannot be used",
            got=f"{noise.dtype} {list(noise.shape)}" + ("" if not real or np.isfinite(noise).all() else ", not finite")
            if isinstance(noise, np.ndarray)
            else type(noise).__name__,
            expected=f"a finite float32 array {list(shape)}: pictures, channels, height and width / {LATENT_SCALE}",
            fix="np.random.default_rng(0).standard_normal(shape, np.float32), of unit variance whatever the sampler",
        )
    return np.ascontiguousarray(noise, np.float32)
