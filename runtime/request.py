"""What a caller asks for, and what that comes to for a model: every value checked, every default filled in."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime.noise import TorchGenerator
from sdxl_trt.runtime.prompts.embeds import PromptEmbeds, check_embeds
from sdxl_trt.runtime.prompts.emphasis import OFF, check_weighting
from sdxl_trt.runtime.prompts.layers import check_clip_skip
from sdxl_trt.spec import LATENT_SCALE, ModelSpec, Profile

DEFAULT_STEPS = 30
DEFAULT_GUIDANCE = 5.0

_MOST_GUIDANCE = 1000.0
_MOST_PIXELS = 1_000_000

_NUMBERS = (int, float, np.integer, np.floating)

Pair = tuple[int, int]


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
    guidance: float | None = None
    """How far to go from the negative prompt's output to the prompt's and beyond; 1 and below: guidance is off."""
    guidance_rescale: float = 0.0
    """0 to 1 (arXiv 2305.08891, section 3.4)."""
    seed: int | Sequence[int] | None = None
    """One picture for each; None: one, of a seed chosen at random."""
    size: Pair | None = None
    sampler: str | None = None
    """None: the scheduler that came with the checkpoint."""
    original_size: Pair | None = None
    target_size: Pair | None = None
    crop_top_left: Pair = (0, 0)
    """(top, left)."""
    negative_original_size: Pair | None = None
    """Used where negative_target_size is given too; else the negative prompt has the prompt's sizes and crop."""
    negative_target_size: Pair | None = None
    negative_crop_top_left: Pair = (0, 0)


@dataclass(frozen=True, kw_only=True)
class MicroConditions:
    """SDXL's size and crop conditioning (arXiv 2307.01952, section 2.2)."""

    original_size: Pair
    crop_top_left: Pair
    target_size: Pair

    def time_ids(self) -> NDArray[np.float32]:
        """[6]: original height, width, crop top, left, target height, width."""
        return np.array([*self.original_size[::-1], *self.crop_top_left, *self.target_size[::-1]], np.float32)


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
    guidance: float
    guidance_rescale: float
    seeds: tuple[int, ...]
    size: Pair
    sampler: str | None
    micro: MicroConditions
    negative_micro: MicroConditions

    @property
    def guided(self) -> bool:
        """Guidance does anything at all."""
        return self.guidance > 1

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
    size = _size("size", request.size, default_size(model, profile))
    profile.check_size(size)
    micro, negative_micro = _micro_conditions(request, size)
    texts, negative_texts = (request.prompt, request.prompt_2), (request.negative_prompt, request.negative_prompt_2)
    prompt_embeds = check_embeds("prompt", request.prompt_embeds, texts, model, profile)
    prompt = _text("prompt", request.prompt) if prompt_embeds is None else ""
    guidance = DEFAULT_GUIDANCE if request.guidance is None else request.guidance
    return Resolved(
        prompt=prompt,
        prompt_2=_optional_text("prompt_2", request.prompt_2) or prompt,
        negative_prompt=_optional_text("negative_prompt", request.negative_prompt),
        negative_prompt_2=_optional_text("negative_prompt_2", request.negative_prompt_2),
        prompt_embeds=prompt_embeds,
        negative_prompt_embeds=check_embeds(
            "negative_prompt", request.negative_prompt_embeds, negative_texts, model, profile
        ),
        weighting=check_weighting(request.weighting),
        clip_skip=check_clip_skip(request.clip_skip, model),
        steps=_integer("steps", DEFAULT_STEPS if request.steps is None else request.steps, least=1),
        guidance=_number("guidance", guidance, most=_MOST_GUIDANCE),
        guidance_rescale=_number("guidance_rescale", request.guidance_rescale, most=1.0),
        seeds=_seeds(request.seed, images),
        size=size,
        sampler=_optional_text("sampler", request.sampler),
        micro=micro,
        negative_micro=negative_micro,
    )


def default_size(model: ModelSpec, profile: Profile) -> Pair:
    """(width, height) in pixels where none is asked for: the model's own, or what the engines are best at."""
    latent = tuple(edge // LATENT_SCALE for edge in model.native_size)
    if all(r.min <= edge <= r.max for edge, r in zip(latent, (profile.width, profile.height), strict=True)):
        return model.native_size
    return profile.width.opt * LATENT_SCALE, profile.height.opt * LATENT_SCALE


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


def _micro_conditions(request: Request, size: Pair) -> tuple[MicroConditions, MicroConditions]:
    """The prompt's and the negative prompt's."""
    micro = MicroConditions(
        original_size=_size("original_size", request.original_size, size),
        crop_top_left=_pair("crop_top_left", request.crop_top_left, least=0),
        target_size=_size("target_size", request.target_size, size),
    )
    negative = MicroConditions(
        original_size=_size("negative_original_size", request.negative_original_size, size),
        crop_top_left=_pair("negative_crop_top_left", request.negative_crop_top_left, least=0),
        target_size=_size("negative_target_size", request.negative_target_size, size),
    )
    own = request.negative_original_size is not None and request.negative_target_size is not None
    return micro, negative if own else micro


def _size(name: str, value: object, default: Pair) -> Pair:
    return default if value is None else _pair(name, value, least=1)


def _seeds(seed: int | Sequence[int] | None, images: int | None) -> tuple[int, ...]:
    if seed is None:
        return tuple(secrets.randbits(32) for _ in range(images or 1))
    seeds = tuple(seed) if isinstance(seed, Iterable) and not isinstance(seed, str) else (seed,)
    for each in seeds:
        TorchGenerator(each)  # refuses what is no seed
    if not seeds or (images is not None and len(seeds) != images):
        raise UsageError(
            "the number of seeds is wrong",
            got=f"{len(seeds)} seeds",
            expected=f"{images} of them, one for each picture" if images else "at least one",
            fix="seed=(0, 1, 2) makes three pictures",
        )
    return tuple(int(each) for each in seeds)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(name, type(value).__name__, "text", f'{name}="a red circle"')
    return value


def _optional_text(name: str, value: object) -> str | None:
    return None if value is None else _text(name, value)


def _integer(name: str, value: object, *, least: int) -> int:
    number = _as_integer(value)
    if number is None or number < least:
        raise _wrong(name, _short(value), f"an integer of at least {least}", f"{name}={DEFAULT_STEPS}")
    return number


def _as_integer(value: object) -> int | None:
    """Any library's integer, but no truth value."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def _number(name: str, value: object, *, most: float) -> float:
    if isinstance(value, _NUMBERS) and not isinstance(value, bool) and 0 <= value <= most:  # not so for a NaN
        return float(value)
    raise _wrong(name, _short(value), f"a number from 0 to {most:g}", f"{name}={min(DEFAULT_GUIDANCE, most):g}")


def _pair(name: str, value: object, *, least: int) -> Pair:
    """Two integers, such as a size."""
    items = [_as_integer(item) for item in value] if isinstance(value, tuple | list) else []
    match items:
        case [int(first), int(second)] if least <= min(first, second) and max(first, second) <= _MOST_PIXELS:
            return first, second
    order = "(top, left)" if name.endswith("top_left") else "(width, height)"
    fix = f"{name}={(least * 1024,) * 2}"
    raise _wrong(name, _short(value), f"{order}: two integers from {least} to {_MOST_PIXELS}", fix)


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print an integer of more than some thousand digits
        text = "an enormous integer"
    return text if len(text) <= 80 else text[:77] + "..."


def _wrong(name: str, got: str, expected: str, fix: str) -> UsageError:
    return UsageError(f"{name} cannot be used", got=got, expected=expected, fix=fix)
