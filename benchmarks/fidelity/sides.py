"""The two sides of a comparison: this package's pipelines, and diffusers', on the same models and for the same case."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.fidelity.cases import STEPS, Case
from benchmarks.fidelity.double import double_precision
from benchmarks.fidelity.models import EDGE, Model
from sdxl_trt.runtime import Pipeline

Latents = NDArray[np.float32 | np.float64]
PROMPT: Final = "a large red circle on a white background"
SEED: Final = 7
GUIDANCE: Final = 5.0
IMAGE_STRENGTH: Final = 0.75
INPAINT_STRENGTH: Final = 0.9999
"""Both pipelines' own default."""
HANDED_OVER_AT: Final = 0.7
"""The part of training's timesteps at which the refiner takes over."""


def picture() -> Image.Image:
    """Noise with a disc: something in every latent."""
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (EDGE, EDGE, 3), np.uint8))
    ImageDraw.Draw(image).ellipse((10, 15, 45, 50), fill=(30, 84, 240))
    return image


def mask() -> Image.Image:
    """A rectangle off the grid of latents."""
    drawn = Image.new("L", (EDGE, EDGE), 0)
    ImageDraw.Draw(drawn).rectangle((19, 11, 50, 39), fill=255)
    return drawn


class Ours:
    """The project's runtime on the CPU bundles, one thread."""

    def __init__(self, base: Model, refiner: Model) -> None:
        self._base, self._refiner = (Pipeline.load(model.bundle, threads=1) for model in (base, refiner))

    def latents(self, case: Case) -> Latents:
        """Final latents [1, 4, h, w]."""
        options = {"sampler": case.sampler.name, "options": case.options, "output": "latents"}
        common: dict[str, Any] = {"steps": STEPS, "guidance": GUIDANCE, "seed": SEED, **options}
        if case.task == "image":
            return self._base(PROMPT, image=picture(), strength=IMAGE_STRENGTH, **common).latents
        if case.task == "inpaint":
            return self._base(PROMPT, image=picture(), mask=mask(), strength=INPAINT_STRENGTH, **common).latents
        if case.task == "text":
            return self._base(PROMPT, size=(EDGE, EDGE), **common).latents
        handed = self._base(PROMPT, size=(EDGE, EDGE), denoising_end=HANDED_OVER_AT, **common).latents
        return self._refiner(PROMPT, image=handed, denoising_start=HANDED_OVER_AT, **common).latents


class Theirs:
    """diffusers' SDXL pipelines, eager on the CPU: float32, or float64 throughout."""

    def __init__(self, base: Model, refiner: Model, *, double: bool = False) -> None:
        import diffusers
        import torch

        self._double = double
        dtype = torch.float64 if double else torch.float32
        text = diffusers.StableDiffusionXLPipeline.from_pretrained(base.checkpoint, dtype=dtype)
        refining = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(refiner.checkpoint, dtype=dtype)
        self.pipelines = {
            "text": text,
            "image": diffusers.StableDiffusionXLImg2ImgPipeline(**text.components),
            "inpaint": diffusers.StableDiffusionXLInpaintPipeline(**text.components),
            "refiner": refining,
        }
        for pipeline in self.pipelines.values():
            pipeline.set_progress_bar_config(disable=True)

    def latents(self, case: Case) -> Latents:
        """Final latents [1, 4, h, w]."""
        import torch

        with warnings.catch_warnings(), double_precision(case.sampler) if self._double else nullcontext():
            warnings.simplefilter("ignore")
            size = {"width": EDGE, "height": EDGE}
            if case.task == "image":
                return self._run(case, "image", image=picture(), strength=IMAGE_STRENGTH)
            if case.task == "inpaint":
                given = {"image": picture(), "mask_image": mask(), "strength": INPAINT_STRENGTH}
                return self._run(case, "inpaint", **given, **size)
            if case.task == "text":
                return self._run(case, "text", **size)
            handed = torch.from_numpy(self._run(case, "text", denoising_end=HANDED_OVER_AT, **size))
            return self._run(case, "refiner", image=handed, denoising_start=HANDED_OVER_AT)

    def _run(self, case: Case, name: str, **settings: Any) -> Latents:
        import diffusers
        import torch

        pipeline = self.pipelines[name]
        pipeline.scheduler = getattr(diffusers, case.sampler.scheduler.name).from_config(case.config)
        made = pipeline(
            PROMPT,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=torch.Generator("cpu").manual_seed(SEED),
            output_type="latent",
            **case.variant.arguments,
            **settings,
        ).images
        if made.dtype != (torch.float64 if self._double else torch.float32):
            raise RuntimeError(f"diffusers' latents are {made.dtype}")
        return np.asarray(made.numpy())
