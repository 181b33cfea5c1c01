"""Requests in A1111's words become ours, and results its answers."""

from __future__ import annotations

import base64
import json
import secrets
import time
from typing import Any, Final

from sdxl_trt.runtime.png import Parameters, format_parameters
from sdxl_trt.runtime.prompts.emphasis import KEEP_MEAN
from sdxl_trt.runtime.request import Request
from sdxl_trt.runtime.samplers import choose_preset
from sdxl_trt.runtime.serve.http.a1111_inputs import Start
from sdxl_trt.runtime.serve.http.a1111_models import ImageToImage, TextToImage, unsupported
from sdxl_trt.runtime.serve.http.a1111_options import check_clip_skip, settings_of
from sdxl_trt.runtime.serve.http.a1111_samplers import choose_sampler
from sdxl_trt.runtime.serve.http.pictures import encode, parameters_of
from sdxl_trt.runtime.serve.job import Job
from sdxl_trt.runtime.serve.limits import Limits
from sdxl_trt.spec import ModelSpec
from sdxl_trt.version import __version__

_STEPS: Final = 50
_GUIDANCE: Final = 7.0


def request_of(body: TextToImage, start: Start | None, model: ModelSpec, limits: Limits) -> Request:
    """The request that a body is.

    Args:
        body: that was checked.
        start: what it starts from; None: from nothing but text.
        model: of the bundle.
        limits: of the service.

    Raises:
        HttpError: an option or eta that is not supported, or too many pictures.
        UnknownName: no such sampler or scheduler.
    """
    count = body.batch_size * body.n_iter
    if count > limits.images:
        raise unsupported(
            "batch_size", f"{body.batch_size} × n_iter {body.n_iter}", f"{limits.images} pictures at most"
        )
    check_clip_skip(body.clip_skip, model)
    overrides = settings_of(body.override_settings, model, restore=body.override_settings_restore_afterwards)
    sampler, options = choose_sampler(body.sampler_name or body.sampler_index, body.scheduler, body.eta, model)
    distilled = choose_preset(model.name, model.scheduler, guidance_embedding=bool(model.unet.guidance_embedding))
    first = secrets.randbits(32) if body.seed < 0 else body.seed
    settings: dict[str, Any] = {
        "prompt": body.prompt,
        "negative_prompt": body.negative_prompt or None,  # A1111 gives SDXL zeros for empty text
        "weighting": KEEP_MEAN,
        "seed": range(first, first + count),
        "size": (body.width, body.height),
        "steps": body.steps or (None if distilled else _STEPS),
        "guidance": _GUIDANCE if body.cfg_scale is None and not distilled else body.cfg_scale,
        "sampler": sampler,
        "options": options,
    }
    return Request(**settings | overrides | (start.settings if start else {}))


def answer(body: TextToImage, start: Start | None, job: Job) -> dict[str, Any]:
    """What a client gets.

    Args:
        body: that was sent.
        start: what it started from.
        job: that is done.
    """
    images = job.result.result().images
    parameters = [parameters_of(job, index) for index in range(len(images))]
    if start is not None and start.paste is not None:
        images = [start.paste(image) for image in images]
    files = [encode(image, "png", parameters=each) for image, each in zip(images, parameters, strict=True)]
    return {
        "images": [base64.b64encode(file).decode() for file in files],
        "parameters": _echo(body, job),
        "info": json.dumps(_info(body, job, parameters)),
    }


def job_timestamp(job: Job) -> str:
    """When a request came, as A1111 writes it."""
    return time.strftime("%Y%m%d%H%M%S", time.localtime(time.time() - (time.monotonic() - job.arrived)))


def _echo(body: TextToImage, job: Job) -> dict[str, Any]:
    """The body, with what it left open and without its pictures; nothing was saved."""
    settings = job.result.result().settings
    said = body.model_dump() | {"steps": settings.steps, "cfg_scale": settings.guidance, "save_images": False}
    hidden = isinstance(body, ImageToImage) and not body.include_init_images
    return said | {"init_images": None, "mask": None} if hidden else said


def _info(body: TextToImage, job: Job, parameters: list[Parameters]) -> dict[str, Any]:
    result, settings = job.result.result(), job.result.result().settings
    (width, height), count = settings.size, len(result.seeds)
    model = job.drafts[0].expert.model
    subseeds = [body.subseed] * count
    return {
        "prompt": body.prompt,
        "all_prompts": [body.prompt] * count,
        "negative_prompt": body.negative_prompt,
        "all_negative_prompts": [body.negative_prompt] * count,
        "seed": result.seeds[0],
        "all_seeds": list(result.seeds),
        "subseed": body.subseed,
        "all_subseeds": subseeds,
        "subseed_strength": 0,
        "width": width,
        "height": height,
        "sampler_name": parameters[0].settings["Sampler"],
        "cfg_scale": settings.guidance,
        "steps": settings.steps,
        "batch_size": body.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": model.name,
        "sd_model_hash": model.content[:10],
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": settings.strength,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [format_parameters(each.prompt, each.negative_prompt, each.settings) for each in parameters],
        "styles": [],
        "job_timestamp": job_timestamp(job),
        "clip_skip": 1,
        "is_using_inpainting_conditioning": False,
        "version": f"sdxl-trt {__version__}",
    }
