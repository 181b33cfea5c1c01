"""Image-to-image and inpainting against diffusers' SDXL pipelines, in float32 on the CPU.

Both sides run the same checkpoint (float16 weights upcast) with its own scheduler config or the sampler that is named,
and one CPU generator per picture, from which the VAE's samples and the noise are drawn; final latents are compared.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeness import relative_error
from models import Models
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sdxl_trt.errors import SdxlTrtError, UsageError
from sdxl_trt.runtime import Pipeline, expert
from sdxl_trt.runtime.table import Table
from sdxl_trt.spec import Column

pytestmark = pytest.mark.usefixtures("one_torch_thread")

REQUIRED = 1e-3  # largest difference over largest magnitude
PROMPT = "a large red circle on a white background"
STEPS, GUIDANCE, SEED = 6, 5.0, 7


@pytest.fixture(scope="module")
def ours(demo_bundle: Path) -> Pipeline:
    return Pipeline.load(demo_bundle)


def reference(kind: str, checkpoint: Path) -> Any:
    """A pipeline of diffusers: 'Img2Img' or 'Inpaint'."""
    import diffusers
    import torch

    half = any((checkpoint / "unet").glob("*.fp16.safetensors"))
    options = {"variant": "fp16"} if half else {}
    made = getattr(diffusers, f"StableDiffusionXL{kind}Pipeline").from_pretrained(
        checkpoint, dtype=torch.float32, **options
    )
    made.set_progress_bar_config(disable=True)
    return made


def picture(size: tuple[int, int] = (128, 128)) -> Image.Image:
    """Noise with a disc: something in every latent."""
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(noise)
    ImageDraw.Draw(image).ellipse((20, 30, 90, 100), fill=(30, 84, 240))
    return image


def mask(size: tuple[int, int] = (128, 128)) -> Image.Image:
    drawn = Image.new("L", size, 0)
    ImageDraw.Draw(drawn).rectangle((37, 21, 90, 77), fill=255)
    return drawn


def latents_of(pipe: Any, **settings: Any) -> NDArray[np.float32]:
    """diffusers' final latents."""
    import torch

    options = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE} | settings
    generator = torch.Generator("cpu").manual_seed(SEED)
    return np.asarray(pipe(PROMPT, generator=generator, output_type="latent", **options).images.numpy())


def our_latents(pipe: Pipeline, **settings: Any) -> NDArray[np.float32]:
    options = {"steps": STEPS, "guidance": GUIDANCE, "seed": SEED} | settings
    return pipe(PROMPT, output="latents", **options).latents


@pytest.mark.parametrize("sampler", [None, "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"])
@pytest.mark.parametrize("strength", [0.3, 0.75, 1.0])
def test_image_to_image(ours: Pipeline, demo_model: Path, strength: float, sampler: str | None) -> None:
    theirs = reference("Img2Img", demo_model)
    _set_scheduler(theirs, sampler)
    expected = latents_of(theirs, image=picture(), strength=strength)
    got = our_latents(ours, image=picture(), strength=strength, sampler=sampler)
    assert relative_error(got, expected, REQUIRED, "latents") <= REQUIRED


@pytest.mark.parametrize(
    "sampler", [None, "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler"]
)
@pytest.mark.parametrize("strength", [0.5, 0.9999, 1.0])
def test_inpainting_with_four_channels(ours: Pipeline, demo_model: Path, strength: float, sampler: str | None) -> None:
    theirs = reference("Inpaint", demo_model)
    _set_scheduler(theirs, sampler)
    expected = latents_of(theirs, image=picture(), mask_image=mask(), strength=strength, width=128, height=128)
    got = our_latents(ours, image=picture(), mask=mask(), strength=strength, sampler=sampler)
    assert relative_error(got, expected, REQUIRED, "latents") <= REQUIRED


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpainting_with_nine_channels(models: Models, strength: float) -> None:
    """A UNet that is told the guidance as well, and evaluated once for each step."""
    theirs = reference("Inpaint", models.checkpoint("inpaint"))
    image, drawn = picture((96, 64)), mask((96, 64))
    expected = latents_of(theirs, image=image, mask_image=drawn, strength=strength, width=96, height=64)
    ours = Pipeline.load(models.bundle("inpaint"))
    got = our_latents(ours, image=image, mask=drawn, strength=strength, sampler="euler")
    assert relative_error(got, expected, REQUIRED, "latents") <= REQUIRED


def test_only_the_surroundings_of_a_mask(ours: Pipeline, demo_model: Path) -> None:
    """Put back into the picture: pixels outside the mask are the input's, the rest is diffusers' to 2 of 255."""
    image, drawn = picture((300, 200)), Image.new("L", (300, 200), 0)
    ImageDraw.Draw(drawn).ellipse((180, 40, 240, 110), fill=255)
    theirs = reference("Inpaint", demo_model)
    import torch

    expected = theirs(
        PROMPT,
        image=image,
        mask_image=drawn,
        width=128,
        height=128,
        strength=0.8,
        padding_mask_crop=16,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator("cpu").manual_seed(SEED),
    ).images[0]
    settings = {"steps": STEPS, "guidance": GUIDANCE, "seed": SEED, "strength": 0.8, "size": (128, 128)}
    got = ours(PROMPT, image=image, mask=drawn, mask_padding=16, **settings).images[0]
    kept = np.asarray(drawn) == 0
    assert np.array_equal(np.asarray(got)[kept], np.asarray(image)[kept])
    difference = np.abs(np.asarray(got, np.int16) - np.asarray(expected, np.int16)).max()
    print(f"pixels: measured {difference}, required 2")
    assert difference <= 2


@pytest.mark.parametrize("settings", [{"strength": 0.5}, {"strength": 0.5, "aesthetic_score": 3.0}])
def test_a_refiner(models: Models, settings: dict[str, Any]) -> None:
    """Alone, from a picture: one text encoder, an aesthetic score, an empty negative prompt that is encoded."""
    theirs = reference("Img2Img", models.checkpoint("refiner"))
    assert theirs.config.requires_aesthetics_score
    expected = latents_of(theirs, image=picture((96, 64)), **settings)
    got = our_latents(Pipeline.load(models.bundle("refiner")), image=picture((96, 64)), **settings)
    assert relative_error(got, expected, REQUIRED, "latents") <= REQUIRED


@pytest.mark.parametrize("sampler", [None, "EulerAncestralDiscreteScheduler"])
def test_an_ensemble_of_experts(models: Models, sampler: str | None) -> None:
    """A base model's noisy latents, finished by a refiner: with its own sampler, or another that draws fresh noise."""
    import torch
    from diffusers import StableDiffusionXLPipeline

    base = StableDiffusionXLPipeline.from_pretrained(models.checkpoint("epsilon"), variant="fp16", dtype=torch.float32)
    base.set_progress_bar_config(disable=True)
    _set_scheduler(base, sampler)
    noisy = latents_of(base, width=96, height=64, denoising_end=0.7)
    theirs = reference("Img2Img", models.checkpoint("refiner"))
    _set_scheduler(theirs, sampler)
    expected = latents_of(theirs, image=torch.from_numpy(noisy), denoising_start=0.7)
    ours, refiner = (Pipeline.load(models.bundle(name)) for name in ("epsilon", "refiner"))
    handed = our_latents(ours, size=(96, 64), denoising_end=0.7, sampler=sampler)
    assert relative_error(handed, noisy, REQUIRED, "what is handed over") <= REQUIRED
    got = our_latents(refiner, image=handed, denoising_start=0.7, sampler=sampler)
    assert relative_error(got, expected, REQUIRED, "latents") <= REQUIRED


def test_one_percent_in_the_blend_fails(ours: Pipeline, demo_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = expert.make_table

    def changed(*arguments: Any, **options: Any) -> Table:
        table = make(*arguments, **options)
        columns = table.columns.copy()
        columns[:, Column.blend_image] *= 1.01
        return replace(table, columns=columns)

    monkeypatch.setattr(expert, "make_table", changed)
    theirs = reference("Inpaint", demo_model)
    expected = latents_of(theirs, image=picture(), mask_image=mask(), strength=0.5, width=128, height=128)
    got = our_latents(ours, image=picture(), mask=mask(), strength=0.5)
    assert relative_error(got, expected, REQUIRED, "latents") > REQUIRED


def test_a_batch_is_its_single_runs(ours: Pipeline) -> None:
    settings = {"image": picture(), "mask": mask(), "strength": 0.7}
    batch = our_latents(ours, seed=(1, 2, 3), **settings)
    single = np.concatenate([our_latents(ours, seed=seed, **settings) for seed in (1, 2, 3)])
    assert relative_error(batch, single, 1e-5, "latents") <= 1e-5


def test_ending_and_going_on_is_one_run(ours: Pipeline) -> None:
    """With a sampler of no memory: to the rounding of float32."""
    whole = our_latents(ours, steps=10)
    half = our_latents(ours, steps=10, denoising_end=0.5)
    rest = our_latents(ours, steps=10, denoising_start=0.5, image=half)
    assert relative_error(rest, whole, 1e-5, "latents") <= 1e-5


def test_the_size_is_the_pictures(ours: Pipeline) -> None:
    assert our_latents(ours, image=picture((131, 108))).shape == (1, 4, 13, 16)
    assert our_latents(ours, image=picture((131, 108)), size=(96, 96)).shape == (1, 4, 12, 12)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"strength": 0.5}, ["strength needs image"]),
        ({"mask": mask()}, ["mask needs image"]),
        ({"image": picture(), "mask_blur": 4.0}, ["mask_blur needs mask"]),
        ({"image": picture(), "strength": 1.5}, ["strength", "0 to 1"]),
        ({"image": picture(), "strength": 0.01}, ["no step"]),
        ({"image": picture(), "mask": mask((64, 64))}, ["64×64", "128×128"]),
        ({"image": picture(), "mask": Image.new("L", (128, 128), 0)}, ["mask"]),
        ({"image": picture(), "mask": mask(), "mask_blur": -1.0}, ["mask_blur", "0 to 1000"]),
        ({"image": picture(), "mask": mask(), "mask_padding": -1}, ["mask_padding"]),
        ({"image": b"not a picture"}, ["picture"]),
        ({"image": np.zeros((1, 3, 16, 16), np.float32)}, ["latents"]),
        ({"image": np.zeros((1, 4, 16, 16), np.float32), "size": (64, 64)}, ["size"]),
        ({"image": np.zeros((3, 4, 16, 16), np.float32), "denoising_start": 0.5}, ["1 seeds", "3 of them"]),
        ({"denoising_end": 0.0}, ["denoising_end"]),
        ({"rng": "tpu"}, ["rng", "cpu or cuda"]),
    ],
)
def test_what_cannot_be(ours: Pipeline, settings: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        our_latents(ours, **settings)
    print(caught.value)
    assert all(part in str(caught.value) for part in parts)


def test_a_refiner_needs_an_image(models: Models) -> None:
    with pytest.raises(SdxlTrtError, match="is a refiner"):
        our_latents(Pipeline.load(models.bundle("refiner")))


def test_an_inpainting_model_needs_a_mask(models: Models) -> None:
    with pytest.raises(SdxlTrtError, match="is an inpainting model"):
        our_latents(Pipeline.load(models.bundle("inpaint")), sampler="euler")


def _set_scheduler(pipe: Any, name: str | None) -> None:
    import diffusers

    if name:
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
