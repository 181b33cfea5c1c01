"""What a caller asks for, and what that comes to for a model: every value checked, every default filled in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from sdxl_trt.runtime.inputs import INPAINTING_STRENGTH, STRENGTH, Input, read_input
from sdxl_trt.runtime.noise import RNGS
from sdxl_trt.runtime.prompts.embeds import PromptEmbeds, check_embeds
from sdxl_trt.runtime.prompts.emphasis import OFF, check_weighting
from sdxl_trt.runtime.prompts.layers import check_clip_skip
from sdxl_trt.runtime.samplers import Preset, SamplerOptions, choose_preset
from sdxl_trt.spec import LATENT_SCALE, ModelSpec, Profile
from sdxl_trt.spec.graphs import LATENT_CHANNELS

DEFAULT_STEPS = 30
DEFAULT_GUIDANCE = 5.0

_MOST_GUIDANCE = 1000.0
_NO_OPTIONS = SamplerOptions()


@dataclass(frozen=True, kw_only=True)
class Request:
    """Pictures as they are asked for; None where the caller leaves a choice to the model.

    Names follow diffusers, but sizes are (width, height) in pixels, where diffusers has (height, width).
    """

    prompt: str | None = None
    """Needed unless prompt_embeds are given."""
    prompt_2: str | None = None
    """For the second text encoder; the prompt where not given or empty."""
    negative_prompt: str | None = None
    """None is not the same as empty text: most models then take zeros (ModelSpec.zero_negative)."""
    negative_prompt_2: str | None = None
    """For the second text encoder; the negative prompt where not given or empty. Ignored where that gives zeros."""
    prompt_embeds: PromptEmbeds | None = None
    """Instead of prompt and prompt_2."""
    negative_prompt_embeds: PromptEmbeds | None = None
    """Instead of negative_prompt and negative_prompt_2."""
    weighting: str = OFF
    """How brackets weight words (`sdxl_trt.runtime.prompts.emphasis.WEIGHTINGS`); 'a1111' for A1111's syntax.

    Off here, so that every prompt gives what it gives in diffusers, which reads `(` as text and is what Python programs
    come from. On in `sdxl-trt run`, whose prompts people type, and paste from pictures that A1111 made.
    """
    clip_skip: int | None = None
    """Further layers of the text encoders to leave out, as diffusers counts and, as there, for the prompt alone."""
    steps: int | None = None
    guidance: float | Sequence[float] | None = None
    """How far to go from the negative prompt's output to the prompt's and beyond; 1 and below: guidance is off, and a
    step costs half. One number, or one for each step that is done."""
    guidance_end: float = 1.0
    """0 to 1: guidance is off after this part of the steps that are done."""
    guidance_rescale: float = 0.0
    """0 to 1 (arXiv 2305.08891, section 3.4)."""
    seed: int | Sequence[int] | None = None
    """One picture for each; None: one, of a seed chosen at random."""
    size: Pair | None = None
    sampler: str | None = None
    """None: the scheduler that came with the checkpoint, or that its kind of model is run with."""
    options: SamplerOptions = _NO_OPTIONS
    """Of the sampler, over what the checkpoint says."""
    rng: str = "cpu"
    """Which of torch's generators seeds are for: 'cpu', or 'cuda' for pictures that were made with one there."""
    image: Any = None
    """A start: a pathlib.Path, a file's bytes, a Pillow image or uint8 [H, W, 3]; or latents, float [N, 4, h, w]."""
    mask: Any = None
    """For inpainting: white is painted anew, black is kept. As `image`, of its size."""
    strength: float | None = None
    """0 to 1: how much of the steps a picture made from `image` goes through. None: 0.3, and 0.9999 with a mask."""
    denoising_start: float | None = None
    """0 to 1: go on from latents that another run left at this part of training's timesteps (its denoising_end)."""
    denoising_end: float | None = None
    """0 to 1: stop there; latents then are still noisy."""
    mask_blur: float = 0.0
    """Standard deviation in pixels."""
    mask_invert: bool = False
    mask_soft: bool = False
    """Grey keeps in part. Else the mask is cut at the middle, as diffusers does."""
    mask_padding: int | None = None
    """Work on the mask and so many pixels round it alone, at the full size; the result is put back into the picture."""
    original_size: Pair | None = None
    target_size: Pair | None = None
    crop_top_left: Pair = (0, 0)
    """(top, left)."""
    negative_original_size: Pair | None = None
    """Used where negative_target_size is given too; else the negative prompt has the prompt's sizes and crop."""
    negative_target_size: Pair | None = None
    negative_crop_top_left: Pair = (0, 0)
    aesthetic_score: float = 6.0
    """0 to 10, what a refiner is told in place of the target size; other models are not."""
    negative_aesthetic_score: float = 2.5
    """The same with the negative prompt."""


@dataclass(frozen=True, kw_only=True)
class MicroConditions:
    """SDXL's size and crop conditioning (arXiv 2307.01952, section 2.2)."""

    original_size: Pair
    crop_top_left: Pair
    target_size: Pair
    aesthetic_score: float | None = None
    """A refiner's, in place of the target size (section 2.5)."""

    def time_ids(self) -> NDArray[np.float32]:
        """[6]: original height, width, crop top, left, target height, width; a refiner's [5] end with the score."""
        last = self.target_size[::-1] if self.aesthetic_score is None else (self.aesthetic_score,)
        return np.array([*self.original_size[::-1], *self.crop_top_left, *last], np.float32)


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A request with nothing left open: it makes the same pictures wherever it runs."""

    prompt: str
    prompt_2: str
    negative_prompt: str | None
    negative_prompt_2: str | None
    prompt_embeds: PromptEmbeds | None
    negative_prompt_embeds: PromptEmbeds | None
    weighting: str
    clip_skip: int
    steps: int
    guidance: float | tuple[float, ...]
    guidance_end: float
    guidance_rescale: float
    seeds: tuple[int, ...]
    size: Pair
    sampler: str | None
    options: SamplerOptions
    rng: str
    given: Input | None
    """What is started from."""
    strength: float | None
    denoising_start: float | None
    denoising_end: float | None
    micro: MicroConditions
    negative_micro: MicroConditions
    guidance_embedded: bool
    """The UNet is told the guidance, and evaluated once for each step."""

    @property
    def guided(self) -> bool:
        """Guidance needs a second evaluation."""
        most = max(self.guidance) if isinstance(self.guidance, tuple) else self.guidance
        return most > 1 and not self.guidance_embedded

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """[4, h, w] of one picture."""
        width, height = self.size
        return 4, height // LATENT_SCALE, width // LATENT_SCALE


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
    given, size = read_input(replace(request, size=asked), default_size(model, profile), profile)
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
        guidance=_guidance(guidance, bool(model.unet.guidance_embedding)),
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
        micro=micro,
        negative_micro=negative_micro,
        guidance_embedded=bool(model.unet.guidance_embedding),
    )


def _guidance(value: float | Sequence[float], embedded: bool) -> float | tuple[float, ...]:
    """One number, or one for each step; a UNet that is told the guidance is told it once."""
    if isinstance(value, list | tuple | np.ndarray) and len(value) and not embedded:
        return tuple(check_number("guidance", each, most=_MOST_GUIDANCE) for each in value)
    return check_number("guidance", value, most=_MOST_GUIDANCE)


def guidances(settings: Resolved, steps: int, evaluations: int) -> NDArray[np.float32]:
    """The guidance of each evaluation [evaluations] of a run of so many steps; 1 where it is off.

    Raises:
        UsageError: the request has another number of them than there are steps.
    """
    values = np.full(steps, settings.guidance) if isinstance(settings.guidance, float) else np.array(settings.guidance)
    if len(values) != steps:
        raise UsageError(
            "guidance has a wrong number of values",
            got=f"{len(values)}",
            expected=f"one number, or {steps}: one for each step that is done",
            fix=f"guidance={settings.guidance[0]:g}" if isinstance(settings.guidance, tuple) else "",
        )
    values[round(steps * settings.guidance_end) :] = 1.0
    order = -(-evaluations // steps)
    return values[np.minimum(np.arange(evaluations) // order, steps - 1)].astype(np.float32)


def _effort(request: Request, preset: Preset | None) -> tuple[int, float | Sequence[float]]:
    """Steps and guidance: those asked for, else the preset's, else the defaults."""
    steps, guidance = (preset.steps, preset.guidance) if preset else (DEFAULT_STEPS, DEFAULT_GUIDANCE)
    return (
        steps if request.steps is None else request.steps,
        guidance if request.guidance is None else request.guidance,
    )


def _sampler(request: Request, preset: Preset | None) -> tuple[str | None, SamplerOptions]:
    """The sampler asked for with its options; else the preset's, and its options where none are asked for."""
    name = check_optional_text("sampler", request.sampler)
    if not isinstance(request.options, SamplerOptions):
        raise UsageError(
            "options cannot be used",
            got=f"{request.options!r:.80}",
            expected="SamplerOptions",
            fix="SamplerOptions(sigmas='karras')",
        )
    if name is not None or preset is None:
        return name, request.options
    return preset.sampler, preset.options if request.options == _NO_OPTIONS else request.options


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


def default_size(model: ModelSpec, profile: Profile) -> Pair:
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
