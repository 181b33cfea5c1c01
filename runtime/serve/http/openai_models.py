"""Fields of OpenAI's images API, and ours beside them: all that `Request` has. What is not here is refused by name.

Sizes are "WIDTHxHEIGHT" and corners "TOP,LEFT", as on the command line.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime.request import Request
from sdxl_trt.runtime.samplers import SamplerOptions
from sdxl_trt.spec import parse_size

Size = Annotated[str, Field(pattern=r"^\d{1,5}x\d{1,5}$")]
Corner = Annotated[str, Field(pattern=r"^\d{1,5},\d{1,5}$")]
Word = Annotated[str, Field(max_length=100)]
_Count = Annotated[int, Field(ge=1, le=1000)]

_SAMPLER = ("spacing", "sigmas", "prediction", "eta", "solver_order", "zero_snr")
_SIZES = ("original_size", "target_size", "negative_original_size", "negative_target_size")
_CORNERS = ("crop_top_left", "negative_crop_top_left")
_OWN_NAMES = (
    *("prompt", "prompt_2", "negative_prompt", "negative_prompt_2", "weighting", "clip_skip", "steps", "guidance"),
    *("guidance_end", "guidance_rescale", "sampler", "rng", "strength", "vae_tiling", "vae_tile", "aesthetic_score"),
    *("negative_aesthetic_score", "refiner_start", "refiner_strength", "refiner_steps", "refiner_guidance"),
    *("refiner_sampler", "mask_blur", "mask_invert", "mask_soft", "mask_padding"),
)
"""Fields that `Request` has under the same name, and as they are."""


class Fields(BaseModel):
    """What both ways to make pictures have."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    prompt: str
    model: str | None = None
    n: _Count | None = None
    size: Annotated[str, Field(pattern=r"^(auto|\d{1,5}x\d{1,5})$")] | None = None
    response_format: Literal["b64_json"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None
    background: Literal["auto", "opaque"] | None = None
    quality: Literal["auto", "standard"] | None = None
    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None

    prompt_2: str | None = None
    negative_prompt: str | None = None
    negative_prompt_2: str | None = None
    weighting: Word | None = None
    clip_skip: int | None = None
    steps: int | None = None
    guidance: float | Annotated[list[float], Field(max_length=1000)] | None = None
    guidance_end: float | None = None
    guidance_rescale: float | None = None
    seed: int | Annotated[list[int], Field(min_length=1, max_length=1000)] | None = None
    sampler: Word | None = None
    spacing: Word | None = None
    sigmas: Word | None = None
    prediction: Word | None = None
    eta: float | None = None
    solver_order: int | None = None
    zero_snr: bool | None = None
    rng: Word | None = None
    strength: float | None = None
    vae_tiling: Word | None = None
    vae_tile: int | None = None
    original_size: Size | None = None
    target_size: Size | None = None
    crop_top_left: Corner | None = None
    negative_original_size: Size | None = None
    negative_target_size: Size | None = None
    negative_crop_top_left: Corner | None = None
    aesthetic_score: float | None = None
    negative_aesthetic_score: float | None = None
    refiner_start: float | None = None
    refiner_strength: float | None = None
    refiner_steps: int | None = None
    refiner_guidance: float | None = None
    refiner_sampler: Word | None = None
    priority: int = 0
    deadline: float | None = None

    @property
    def kind(self) -> str:
        """Of files that pictures are sent as."""
        return self.output_format or "png"

    def to_request(self, **pictures: Any) -> Request:
        """What the service is asked for.

        Args:
            pictures: `image` and `mask`, where there are.

        Raises:
            UsageError: fields that do not go together.
        """
        if self.kind == "png" and self.output_compression not in (None, 100):
            raise UsageError(
                "output_compression cannot be used with png",
                got=str(self.output_compression),
                expected="100: nothing is lost",
                fix="output_format=webp",
            )
        if self.partial_images and not self.stream:
            raise UsageError("partial_images needs stream", got="no stream", fix="stream=true")
        settings = {name: getattr(self, name, None) for name in _OWN_NAMES}
        settings |= {name: text and parse_size(text) for name in _SIZES if (text := getattr(self, name))}
        settings |= {name: _corner(text) for name in _CORNERS if (text := getattr(self, name))}
        settings["size"] = None if self.size in (None, "auto") else parse_size(str(self.size))
        settings["options"] = SamplerOptions(**{name: getattr(self, name) for name in _SAMPLER})
        given = {name: value for name, value in settings.items() if value is not None}
        return Request(seed=self._seeds(), **given, **pictures)

    def _seeds(self) -> list[int]:
        """One for each picture: from one seed upwards, or random."""
        if isinstance(self.seed, list):
            if self.n not in (None, len(self.seed)):
                raise UsageError(
                    "seed and n do not go together", got=f"{len(self.seed)} seeds, n={self.n}", fix="leave n out"
                )
            return self.seed
        first = self.seed
        return [secrets.randbits(32) if first is None else first + index for index in range(self.n or 1)]


class Generation(Fields):
    """Body of /v1/images/generations."""

    moderation: Literal["auto", "low"] | None = None
    style: Literal["vivid"] | None = None


class Edit(Fields):
    """Fields of /v1/images/edits beside the files: a form's are text, so that numbers are read from it."""

    model_config = ConfigDict(strict=False)

    mask_blur: float | None = None
    mask_invert: bool | None = None
    mask_soft: bool | None = None
    mask_padding: int | None = None


class Shown(BaseModel):
    """A picture of an answer."""

    b64_json: str
    revised_prompt: None
    seed: int


class Answer(BaseModel):
    """What is answered where no stream is asked for."""

    created: int
    data: list[Shown]
    size: str
    output_format: Literal["png", "jpeg", "webp"]
    quality: Literal["auto"]
    background: Literal["opaque"]
    usage: dict[str, Any]


class Event(BaseModel):
    """One of what is answered where a stream is asked for; its data is JSON."""

    event: Literal[
        "image_generation.partial_image",
        "image_generation.completed",
        "image_edit.partial_image",
        "image_edit.completed",
        "error",
    ]
    data: str


STREAMED: Mapping[str, Any] = {"text/event-stream": {"schema": Event.model_json_schema()}}
"""For the API's description."""


def edit_schema() -> Mapping[str, Any]:
    """What /v1/images/edits takes, for the API's description."""
    schema = Edit.model_json_schema()
    file = {"type": "string", "format": "binary"}
    schema["properties"] |= {"image": file, "mask": file}
    schema["required"] = [*schema["required"], "image"]
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def _corner(text: str) -> tuple[int, int]:
    top, left = text.split(",")
    return int(top), int(left)
