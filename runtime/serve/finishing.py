"""What runs before a request's first step and after its last: prompts, inputs, and the VAE."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.progress import silent
from sdxl_trt.runtime.noise import RNGS
from sdxl_trt.runtime.results import decode
from sdxl_trt.runtime.serve.job import ENCODING, QUEUED, Job, PictureWork


def begin_job(job: Job) -> None:
    """Encode prompts and inputs: its pictures may step from then on.

    Raises:
        PromptTooLong, UsageError: a prompt that the engines do not take.
        RunError: an engine failed.
    """
    job.enter(ENCODING)
    plans = [draft.encode() for draft in job.drafts]
    settings = plans[0].settings
    sources = [RNGS[settings.rng](seed) for seed in settings.seeds]
    requests = plans[0].begin(sources, job.terms.noise, refined=len(plans) > 1)
    job.plans = plans
    for picture, request in zip(job.all, requests, strict=True):
        picture.request = picture.waiting = request
    job.enter(QUEUED)


def decode_picture(picture: PictureWork) -> None:
    """Make a denoised picture visible, where that was asked for.

    Raises:
        RunError: the engine failed, or gave NaN or infinity.
    """
    job = picture.job
    if job.terms.output == "image" and picture.latents is not None:
        plan = job.plans[-1]
        (picture.image,) = decode(plan.expert.vae, picture.latents[None], plan.settings, silent)


def decode_partial(picture: PictureWork, number: int, latents: NDArray[np.float32]) -> None:
    """Show somebody what a picture looks like so far.

    Args:
        picture: that is on its way.
        number: of the partial picture, from 0.
        latents: [4, h, w] as its last step foresaw them.

    Raises:
        RunError: the engine failed, or gave NaN or infinity.
    """
    job = picture.job
    plan = job.plans[picture.leg]
    (image,) = decode(plan.expert.vae, latents[None], plan.settings, silent)
    if job.terms.on_partial is not None:
        job.terms.on_partial(picture.index, number, image)
