"""What pictures can be asked with beside their prompt, and how it goes to a server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from sdxl_trt.errors import UnknownName, UsageError
from sdxl_trt.spec.profile import format_size

Size = tuple[int, int]
"""(width, height) in pixels."""


class Settings(TypedDict, total=False):
    """As of `sdxl_trt.runtime.Request`, whose names they have; what is left out, or None, is the server's choice."""

    prompt_2: str | None
    negative_prompt: str | None
    negative_prompt_2: str | None
    weighting: str | None
    clip_skip: int | None
    steps: int | None
    guidance: float | Sequence[float] | None
    guidance_end: float | None
    guidance_rescale: float | None
    seed: int | Sequence[int] | None
    """One picture for each; of one seed, `n` pictures from it upwards."""
    n: int | None
    size: Size | None
    sampler: str | None
    spacing: str | None
    sigmas: str | None
    prediction: str | None
    eta: float | None
    solver_order: int | None
    zero_snr: bool | None
    rng: str | None
    strength: float | None
    vae_tiling: str | None
    vae_tile: int | None
    original_size: Size | None
    target_size: Size | None
    crop_top_left: tuple[int, int] | None
    """(top, left)."""
    negative_original_size: Size | None
    negative_target_size: Size | None
    negative_crop_top_left: tuple[int, int] | None
    aesthetic_score: float | None
    negative_aesthetic_score: float | None
    refiner_start: float | None
    refiner_strength: float | None
    refiner_steps: int | None
    refiner_guidance: float | None
    refiner_sampler: str | None

    model: str | None
    """Name of the model that is expected: another is refused."""
    priority: int | None
    """−2 to 2; more goes first."""
    deadline: float | None
    """Seconds after which it fails where it is not done."""
    user: str | None
    """Whom it is for, where the server asks for no keys: requests of one share what they get."""
    output_format: str | None
    """'png', which says how it was made; 'jpeg' or 'webp'."""
    output_compression: int | None
    """0 to 100: the quality of JPEG and WebP."""
    request_id: str | None
    """What the request is called in the server's log and queue; else the server finds a name."""


class EditSettings(Settings, total=False):
    """The same where pictures are made from a picture, and of its mask."""

    mask_blur: float | None
    mask_invert: bool | None
    mask_soft: bool | None
    mask_padding: int | None


_SIZES = ("size", "original_size", "target_size", "negative_original_size", "negative_target_size")
_CORNERS = ("crop_top_left", "negative_crop_top_left")


def to_json(prompt: str, settings: Mapping[str, Any], known: type[Settings]) -> dict[str, Any]:
    """Fields of a request, for JSON.

    Args:
        prompt: one of them.
        settings: the others.
        known: says which there are.

    Raises:
        UnknownName: one is not among them.
        UsageError: a value that is no JSON: NaN, or half a surrogate pair.
    """
    fields: dict[str, Any] = {"prompt": prompt}
    for name, value in settings.items():
        if name not in known.__annotations__:
            raise UnknownName("setting", name, sorted(known.__annotations__))
        if value is not None:
            fields[name] = _as_text(name, value)
    for name, value in fields.items():
        _check(name, value)
    return fields


def to_form(fields: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """The same fields for a form: numbers as text, a field for each item of a list."""
    return {
        name: [_part(item) for item in value] if isinstance(value, list) else _part(value)
        for name, value in fields.items()
    }


def pictures_asked(fields: Mapping[str, Any]) -> int:
    """How many there will be."""
    seed = fields.get("seed")
    return len(seed) if isinstance(seed, list) else int(fields.get("n", 1))


def _as_text(name: str, value: Any) -> Any:
    """Sizes and corners as the server reads them; other sequences as lists."""
    if name in _SIZES and isinstance(value, tuple) and len(value) == 2:
        return format_size(value)
    if name in _CORNERS and isinstance(value, tuple) and len(value) == 2:
        return f"{value[0]},{value[1]}"
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _check(name: str, value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{name} cannot be sent",
            got=f"{value!r:.80}",
            expected="text that has a UTF-8 form, a finite number, true or false",
            fix="see sdxl_trt.client.settings",
        ) from error


def _part(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
