"""What A1111's API is sent, by the names of AUTOMATIC1111/stable-diffusion-webui 1.10, and what of it is refused.

There, modules/api/models.py makes these models of the fields of StableDiffusionProcessingTxt2Img and …Img2Img
(modules/processing.py): every field may be null, which is as if it were not sent. Clients send dozens of them with
values that ask for nothing: those are taken. A value that asks for what is not done here is refused by its name.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sdxl_trt.runtime.serve.http.errors import HttpError

_NETWORK = re.compile(r"<(lora|lyco|hypernet):[^<>]*>")
_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "enable_hr": (False,),
    "hr_additional_modules": ([],),
    "restore_faces": (False,),
    "tiling": (False,),
    "styles": ([],),
    "subseed_strength": (0,),
    "s_churn": (0,),
    "s_noise": (1,),
    "s_min_uncond": (0,),
    "script_name": ("", "None"),
    "script_args": ([],),
    "alwayson_scripts": ({},),
    "refiner_checkpoint": ("", "None"),
    "disable_extra_networks": (False,),
    "comments": ({},),
    "infotext": ("",),
    "force_task_id": ("",),
    "firstpass_image": ("",),
    "send_images": (True,),
    "latent_mask": ("",),
    "image_cfg_scale": (1.5,),
    "initial_noise_multiplier": (1,),
}
"""Values that ask for nothing, of fields that are not supported. Those that only say how one of these is to be done
(hr_scale, refiner_switch_at, s_tmax, …) are not looked at: without it they mean nothing in A1111 either."""


class TextToImage(BaseModel):
    """Body of txt2img."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, title="StableDiffusionProcessingTxt2Img")

    prompt: str = ""
    negative_prompt: str = ""
    seed: int = Field(-1, ge=-1, description="Of the first picture; the next ones count up. -1: random.")
    batch_size: int = Field(1, ge=1)
    n_iter: int = Field(1, ge=1, description="Pictures are batch_size times this; all may step together.")
    steps: int | None = Field(None, ge=1, description="50; of a distilled model, as many as it is made for.")
    cfg_scale: float | None = Field(None, ge=0, description="7; of a distilled model, what it is made for.")
    width: int = 512
    height: int = 512
    sampler_name: str | None = Field(None, max_length=100, description="The model's own where there is none.")
    sampler_index: str | None = Field(None, max_length=100, description="Where there is no sampler_name.")
    scheduler: str | None = Field(None, max_length=100)
    eta: float | None = None
    override_settings: dict[str, Any] = {}
    override_settings_restore_afterwards: bool = True
    clip_skip: int | None = Field(None, description="SD.Next's CLIP_stop_at_last_layers.")
    save_images: bool = Field(
        False, description="Nothing is ever kept here: pictures are in the answer, and nowhere else."
    )
    send_images: bool = True
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False

    enable_hr: bool = False
    denoising_strength: float | None = None
    firstphase_width: int = 0
    firstphase_height: int = 0
    hr_scale: float = 2.0
    hr_upscaler: str | None = None
    hr_second_pass_steps: int = 0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: str = ""
    hr_negative_prompt: str = ""
    hr_additional_modules: list[str] | None = Field(None, description="Forge's.")
    firstpass_image: str | None = None

    styles: list[str] = []
    subseed: int = -1
    subseed_strength: float = 0.0
    seed_resize_from_h: int = -1
    seed_resize_from_w: int = -1
    restore_faces: bool | None = None
    tiling: bool | None = None
    s_min_uncond: float | None = None
    s_churn: float | None = None
    s_tmax: float | None = None
    s_tmin: float | None = None
    s_noise: float | None = None
    refiner_checkpoint: str | None = None
    refiner_switch_at: float | None = None
    disable_extra_networks: bool = False
    comments: dict[str, Any] | None = None
    script_name: str | None = None
    script_args: list[Any] = []
    alwayson_scripts: dict[str, Any] = {}
    force_task_id: str | None = None
    infotext: str | None = None

    url: str | None = Field(None, exclude=True, description="SillyTavern's; never looked at.")
    auth: str | None = Field(None, exclude=True, description="SillyTavern's; never looked at.")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, body: Any) -> Any:
        return {name: value for name, value in body.items() if value is not None} if isinstance(body, dict) else body

    def check(self) -> None:
        """Refuse what is not done here.

        Raises:
            HttpError: names the field.
        """
        for name, neutral in _NEUTRAL.items():
            value = getattr(self, name, None)
            if value is not None and value not in neutral:
                raise unsupported(name, value, " or ".join(map(json.dumps, neutral)))
        if min(self.seed_resize_from_h, self.seed_resize_from_w) > 0:
            raise unsupported("seed_resize_from_h", self.seed_resize_from_h, "-1")
        for name in ("prompt", "negative_prompt"):
            network = _NETWORK.search(getattr(self, name))
            if network:
                raise unsupported(network[1], network[0], "a prompt without it", where=name)


class ImageToImage(TextToImage):
    """Body of img2img."""

    model_config = ConfigDict(title="StableDiffusionProcessingImg2Img")

    init_images: list[str] = Field([], description="One picture as base64 or data URL.")
    include_init_images: bool = Field(False, description="Say it in `parameters` of the answer.")
    mask: str | None = Field(None, description="As init_images: white is painted anew.")
    denoising_strength: float = Field(0.75, ge=0, le=1)
    resize_mode: int = Field(0, ge=0, le=3, description="0 stretches, 1 crops, 2 fills up; 3 is not supported.")
    mask_blur: float | None = Field(None, ge=0, le=1000, description="Standard deviation in pixels, both ways.")
    mask_blur_x: float = Field(4, ge=0, le=1000)
    mask_blur_y: float = Field(4, ge=0, le=1000)
    mask_round: bool = Field(True, description="Cut the mask at the middle; else grey keeps in part.")
    inpainting_fill: int = Field(0, ge=0, le=3, description="0 fills with what is around, 1 starts from what is there.")
    inpaint_full_res: bool = Field(True, description="Work on the mask and what is around it alone, at the full size.")
    inpaint_full_res_padding: int = Field(0, ge=0)
    inpainting_mask_invert: int = Field(0, ge=0, le=1, description="1: black is painted anew.")
    image_cfg_scale: float | None = None
    initial_noise_multiplier: float | None = None
    latent_mask: str | None = None

    def check(self) -> None:
        """Refuse what is not done here.

        Raises:
            HttpError: names the field.
        """
        super().check()
        if len(self.init_images) != 1:
            raise unsupported("init_images", f"{len(self.init_images)} pictures", "one picture, as base64 or data URL")
        if self.resize_mode == 3:
            raise unsupported("resize_mode", 3, "0 (stretch), 1 (crop) or 2 (fill up)")
        if self.mask is not None and self.inpainting_fill > 1:
            raise unsupported("inpainting_fill", self.inpainting_fill, "0 (what is around) or 1 (what is there)")
        if self.mask_blur is None and self.mask_blur_x != self.mask_blur_y:
            raise unsupported("mask_blur_x", self.mask_blur_x, "the same as mask_blur_y")

    @property
    def blur(self) -> float:
        """Of the mask."""
        return self.mask_blur_x if self.mask_blur is None else self.mask_blur


def unsupported(name: str, value: object, expected: str, *, where: str = "") -> HttpError:
    """The refusal of a value.

    Args:
        name: of what is not supported.
        value: that was sent.
        expected: what would have been taken.
        where: the field that it is in, where it is none itself.
    """
    return HttpError(
        422,
        f"{name} is not supported here" if where else f"this value of {name} is not supported here",
        code="unsupported",
        param=where or name,
        got=f"{value!r:.80}",
        expected=expected,
        fix=f"leave {name} out",
    )
