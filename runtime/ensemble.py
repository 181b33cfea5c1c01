"""A base model and its refiner in one request, either way that SDXL's authors describe (arXiv 2307.01952, section 2.5).

refiner_start      an ensemble of experts (arXiv 2211.01324): the base denoises down to that part of training's
                   timesteps, the refiner from there; diffusers' denoising_end and denoising_start
refiner_strength   the base makes a picture, and the refiner changes it as image-to-image does

Latents are handed over as they are, float32 and unrounded. Both models of a picture draw from one generator, one after
the other, as diffusers' pipelines do when they are given the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import NoStepLeft, UsageError
from sdxl_trt.progress import Progress
from sdxl_trt.runtime.checks import check_integer, check_number, check_optional_text
from sdxl_trt.runtime.expert import Expert
from sdxl_trt.runtime.guidance import MOST_GUIDANCE
from sdxl_trt.runtime.levels import Mix
from sdxl_trt.runtime.noise import RNGS
from sdxl_trt.runtime.plans import Draft, Plan
from sdxl_trt.runtime.prompts.embeds import PromptEmbeds
from sdxl_trt.runtime.prompts.layers import check_clip_skip
from sdxl_trt.runtime.request import Request, Resolved
from sdxl_trt.runtime.resolving import check_options
from sdxl_trt.runtime.slots import SlotRequest
from sdxl_trt.runtime.starts import Start
from sdxl_trt.runtime.steps import Callback, Teller
from sdxl_trt.runtime.table import Table

_WAYS = ("refiner_start", "refiner_strength")
_CHOICES = ("refiner_steps", "refiner_guidance", "refiner_sampler", "refiner_options")


def asks_for_refiner(request: Request, base: Expert, refiner: Expert | None) -> bool:
    """Whether a refiner has a part in a request.

    Args:
        request: what is asked for.
        base, refiner: the bundle's.

    Raises:
        UsageError: there is no refiner; both ways are asked for, or a choice for neither; a part out of range.
    """
    ways = [name for name in _WAYS if getattr(request, name) is not None]
    choices = [name for name in _CHOICES if getattr(request, name) != getattr(_NOTHING, name)]
    if refiner is None and (ways or choices):
        raise UsageError(
            f"{(ways + choices)[0]} needs a refiner",
            got=f"{base.model.name}, target {base.loaded.target.name}, without one",
            expected="a bundle that a refiner was built into",
            fix="sdxl-trt build BASE --refiner stabilityai/stable-diffusion-xl-refiner-1.0 --gpu NAME -o BUNDLE",
        )
    if len(ways) == 2 or (choices and not ways):
        raise UsageError(
            f"{choices[0]} needs a way to refine"
            if not ways
            else "there are two ways to refine, and both are asked for",
            got="neither refiner_start nor refiner_strength" if not ways else " and ".join(ways),
            expected="refiner_start (the refiner does the last steps) or refiner_strength (it changes the picture)",
            fix="refiner_start=0.8",
        )
    for name in ways:
        check_number(name, getattr(request, name), most=1.0)
    return bool(ways)


_NOTHING = Request()


def base_request(request: Request) -> Request:
    """What the base model is to do, where a refiner goes on."""
    return replace(request, denoising_end=request.refiner_start)


def refiner_settings(request: Request, base: Resolved, first: Expert, refiner: Expert) -> Resolved:
    """What the refiner is to do; like the base in everything that is not asked for otherwise.

    Where no sampler is named, that is its own checkpoint's, and not what a distilled base is run with.

    Raises:
        UsageError: a value that cannot be used.
    """
    named = request.refiner_sampler is not None or request.refiner_options != _NOTHING.refiner_options
    steps = base.steps if request.refiner_steps is None else request.refiner_steps
    guidance = base.guidance if isinstance(base.guidance, float) else base.guidance[-1]
    if request.refiner_guidance is not None:
        guidance = check_number("refiner_guidance", request.refiner_guidance, most=MOST_GUIDANCE)
    scores = [
        check_number(name, getattr(request, name), most=10.0)
        for name in ("aesthetic_score", "negative_aesthetic_score")
    ]
    model = refiner.model
    return replace(
        base,
        steps=check_integer("refiner_steps", steps, least=1),
        guidance=guidance,
        sampler=check_optional_text("refiner_sampler", request.refiner_sampler) if named else request.sampler,
        options=check_options("refiner_options", request.refiner_options) if named else request.options,
        strength=request.refiner_strength,
        denoising_start=request.refiner_start,
        denoising_end=request.denoising_end,
        clip_skip=check_clip_skip(base.clip_skip, model),
        prompt_embeds=_own_part("prompt_embeds", base.prompt_embeds, first, refiner),
        negative_prompt_embeds=_own_part("negative_prompt_embeds", base.negative_prompt_embeds, first, refiner),
        micro=replace(base.micro, aesthetic_score=scores[0]),
        negative_micro=replace(base.negative_micro, aesthetic_score=scores[1]),
        guidance_embedded=bool(model.unet.guidance_embedding),
    )


def _own_part(name: str, embeds: PromptEmbeds | None, first: Expert, refiner: Expert) -> PromptEmbeds | None:
    """What the refiner's text encoder, the base's second, gave of a caller's embeddings."""
    if embeds is None:
        return None
    if first.loaded.encoders[-1].engine is not refiner.loaded.encoders[0].engine:
        raise UsageError(
            f"{name} cannot be used with this refiner",
            got=f"embeddings for {first.model.name} alone",
            expected=f"text: {refiner.model.name} has a text encoder of its own",
            fix="give the prompt as text",
        )
    return PromptEmbeds(hidden=embeds.hidden[:, -refiner.model.unet.text :], pooled=embeds.pooled)


def make_drafts(experts: tuple[Expert, Expert], base: Resolved, refiner: Resolved) -> list[Draft]:
    """Both models' parts.

    Raises:
        UsageError, SchedulerError: as of `Expert.table` and `Draft.make`.
    """
    with _blamed("refiner_start", refiner.denoising_start, "the base model", "denoising_end"):
        first = experts[0].table(base)
    name, value = (
        ("refiner_start", refiner.denoising_start)
        if refiner.strength is None
        else ("refiner_strength", refiner.strength)
    )
    with _blamed(name, value, "the refiner", "denoising_start", "strength"):
        second = experts[1].table(refiner)
    if refiner.denoising_start is not None:
        base, refiner = _share_guidance_end(base, refiner, first.steps, second.steps)
    return [
        Draft.make(expert, each, table)
        for expert, each, table in zip(experts, (base, refiner), (first, second), strict=True)
    ]


@contextmanager
def _blamed(name: str, value: float | None, whom: str, *parts: str) -> Iterator[None]:
    """Lay the blame for a model that has nothing to do on the setting that the caller knows."""
    try:
        yield
    except NoStepLeft as error:
        if error.part not in parts or value is None:
            raise
        raise UsageError(
            f"{name} leaves no step to {whom}",
            got=f"{name}={value:g}: {error.got}",
            expected="at least one step for each of the two models",
            fix=f"another {name}, or more steps",
        ) from error


def _share_guidance_end(base: Resolved, refiner: Resolved, first: int, second: int) -> tuple[Resolved, Resolved]:
    """The end of guidance as a part of each run of so many steps, where it was meant as one of both together."""
    guided = base.guidance_end * (first + second)
    return (
        replace(base, guidance_end=min(guided / first, 1.0)),
        replace(refiner, guidance_end=max(guided - first, 0.0) / second),
    )


def go_on(
    plan: Plan, before: Table, requests: Sequence[SlotRequest], latents: NDArray[np.float32]
) -> list[SlotRequest]:
    """The refiner's work: to go on with the base's.

    What a mask keeps is put back from the base's input. (diffusers' second pipeline puts back what was handed over,
    which is the same where the mask is black; it is not where latents were rescaled.)

    Args:
        plan: the refiner's.
        before: the base's table.
        requests: the base's work.
        latents: [N, 4, h, w], its results.
    """
    scale = np.float32(hand_over_scale(before.ends, plan.table.begins))
    mask = plan.settings.given.mask if plan.settings.given else None
    slots = []
    for request, result in zip(requests, latents, strict=True):
        draws = plan.table.initial_scale != 0 or mask is not None
        noise = request.source.normal(result.shape) if draws else request.noise
        start = Start(noise=noise, begin=scale * result, image=request.image, mask=mask)
        slots.append(plan.slot(request.source, start))
    return slots


def hand_over_scale(ends: Mix, begins: Mix) -> float:
    """The factor that brings a sample to another sampler's convention: x₀ + σ · n, or α · x₀ + √(1 − α²) · n.

    Args:
        ends: level of the sample.
        begins: of what the other sampler starts from; the noise per unit of picture is the same but for rounding of
            timesteps, and stays as it is.
    """
    return 1 / ends.image if begins.image == 1 else 1 / math.hypot(*ends)


def denoise(
    plans: Sequence[Plan], noise: NDArray[np.float32] | None, progress: Progress, callback: Callback | None
) -> NDArray[np.float32]:
    """Final latents [N, 4, h, w] of one model after the other.

    Args:
        plans: the model's; or the base's and the refiner's.
        noise: the caller's own [N, 4, h, w] to start from.
        progress, callback: as of `Pipeline.run`.

    Raises:
        RunError: an engine failed, or gave NaN or infinity.
    """
    base, *refiner = plans
    settings, evaluations = base.settings, sum(plan.table.evaluations for plan in plans)
    teller = Teller(callback, progress, pictures=len(settings.seeds), evaluations=evaluations)
    sources = [RNGS[settings.rng](seed) for seed in settings.seeds]
    requests = base.begin(sources, noise, refined=bool(refiner))
    latents = base.denoise(requests, teller)
    for plan in refiner:
        latents = plan.denoise(go_on(plan, base.table, requests, latents), teller)
    return latents
