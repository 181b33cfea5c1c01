"""A base model and its refiner in one call, against diffusers' two pipelines one after the other.

Both sides in float32 on the CPU, on tiny SDXLs with random weights (the refiner has the base's second text encoder and
VAE), each checkpoint with its own scheduler config or the sampler that is named. diffusers' pipelines are given one
generator, from which the VAE's samples, the noise and fresh noise are drawn; final latents are compared.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from closeness import relative_error
from models import Models
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sdxl_trt.bundle import BlobStore, read_manifest, write_manifest
from sdxl_trt.errors import UsageError
from sdxl_trt.runtime import Pipeline, PromptEmbeds
from sdxl_trt.runtime.ensemble import hand_over_scale
from sdxl_trt.runtime.levels import Mix
from sdxl_trt.runtime.samplers import SAMPLERS, SamplerOptions, make_table
from sdxl_trt.runtime.steps import Step

pytestmark = pytest.mark.usefixtures("one_torch_thread")

REQUIRED = 1e-5  # largest difference over largest magnitude
PROMPT, SIZE, STEPS, GUIDANCE, SEED = "a large red circle on a white background", (96, 64), 8, 5.0, 7
EULER, DDIM = "EulerDiscreteScheduler", "DDIMScheduler"
ANCESTRAL, MULTISTEP = "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler"


@pytest.fixture(scope="module")
def ours(models: Models) -> Pipeline:
    return Pipeline.load(models.bundle("epsilon", "refiner"))


Theirs = Callable[..., Any]


@pytest.fixture(scope="module")
def theirs(models: Models) -> Theirs:
    """diffusers' pipeline: ('base' or 'refiner', '', 'Img2Img' or 'Inpaint', a scheduler's class or None)."""
    import diffusers
    import torch

    parts: dict[str, Any] = {}
    for name, kind, options in (("base", "", {"variant": "fp16"}), ("refiner", "Img2Img", {})):
        checkpoint = models.checkpoint({"base": "epsilon"}.get(name, name))
        pipe = getattr(diffusers, f"StableDiffusionXL{kind}Pipeline")
        parts[name] = pipe.from_pretrained(checkpoint, dtype=torch.float32, **options)

    def make(name: str, kind: str, scheduler: str | None = None) -> Any:
        own = parts[name]
        config = {**own.scheduler.config, "clip_sample": False}
        made = getattr(diffusers, f"StableDiffusionXL{kind}Pipeline")(
            **{**own.components, "scheduler": getattr(diffusers, scheduler or EULER).from_config(config)},
            **{key: own.config[key] for key in ("force_zeros_for_empty_prompt",)},
            **({"requires_aesthetics_score": own.config.get("requires_aesthetics_score", False)} if kind else {}),
        )
        made.set_progress_bar_config(disable=True)
        return made

    return make


def picture() -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    image = Image.fromarray(noise)
    ImageDraw.Draw(image).ellipse((20, 10, 70, 60), fill=(30, 84, 240))
    return image


def mask() -> Image.Image:
    drawn = Image.new("L", SIZE, 0)
    ImageDraw.Draw(drawn).rectangle((29, 13, 66, 45), fill=255)
    return drawn


def latents_of(pipe: Any, generator: Any, **settings: Any) -> NDArray[np.float32]:
    """diffusers' final latents."""
    options = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE} | settings
    return np.asarray(pipe(PROMPT, generator=generator, output_type="latent", **options).images.numpy())


def in_sequence(
    theirs: Theirs,
    task: str,
    schedulers: tuple[str | None, str | None],
    base: dict[str, Any],
    refiner: dict[str, Any],
    scale: float = 1.0,
) -> NDArray[np.float32]:
    """diffusers' base pipeline, its latents scaled, and the refiner's pipeline."""
    import torch

    generator = torch.Generator("cpu").manual_seed(SEED)
    inputs: dict[str, Any] = {
        "text": {},
        "image": {"image": picture(), "strength": 0.8},
        "inpaint": {"image": picture(), "mask_image": mask(), "strength": 0.9},
    }[task]
    size = {} if task == "image" else {"width": SIZE[0], "height": SIZE[1]}
    kind = {"text": "", "image": "Img2Img", "inpaint": "Inpaint"}[task]
    handed = latents_of(theirs("base", kind, schedulers[0]), generator, **inputs, **size, **base)
    again = {"mask_image": mask(), **size} if task == "inpaint" else {}
    pipe = theirs("refiner", "Inpaint" if task == "inpaint" else "Img2Img", schedulers[1])
    return latents_of(pipe, generator, image=torch.from_numpy(handed * np.float32(scale)), **again, **refiner)


def our_latents(pipe: Pipeline, task: str = "text", **settings: Any) -> NDArray[np.float32]:
    inputs: dict[str, Any] = {
        "text": {"size": SIZE},
        "image": {"image": picture(), "strength": 0.8},
        "inpaint": {"image": picture(), "mask": mask(), "strength": 0.9},
    }[task]
    options = {"steps": STEPS, "guidance": GUIDANCE, "seed": SEED, "output": "latents"} | inputs | settings
    return pipe(PROMPT, **options).latents


@pytest.mark.parametrize("task", ["text", "image", "inpaint"])
@pytest.mark.parametrize("samplers", [(None, None), (ANCESTRAL, ANCESTRAL), (MULTISTEP, DDIM)])
def test_an_ensemble_of_experts(
    ours: Pipeline, theirs: Theirs, task: str, samplers: tuple[str | None, str | None]
) -> None:
    """Samplers of one convention: x₀ + σ · n, or of preserved variance."""
    parts: tuple[dict[str, Any], dict[str, Any]] = {"denoising_end": 0.6}, {"denoising_start": 0.6}
    expected = in_sequence(theirs, task, samplers, *parts)
    got = our_latents(ours, task, refiner_start=0.6, sampler=samplers[0], refiner_sampler=samplers[1])
    assert relative_error(got, expected, REQUIRED, f"{task} {samplers}") <= REQUIRED


@pytest.mark.parametrize("task", ["text", "image"])
@pytest.mark.parametrize("samplers", [(EULER, DDIM), (DDIM, EULER), (ANCESTRAL, MULTISTEP)])
def test_samplers_of_two_conventions(ours: Pipeline, theirs: Theirs, task: str, samplers: tuple[str, str]) -> None:
    """diffusers' latents are scaled by hand, by the level that the first sampler leaves them at."""
    sigma = theirs("base", "", EULER).scheduler
    sigma.set_timesteps(STEPS)
    left = next(float(s) for s, t in zip(sigma.sigmas, sigma.timesteps, strict=False) if t < 400)
    alpha = 1 / math.sqrt(1 + left**2)
    scale = alpha if "Euler" in samplers[0] else 1 / alpha
    parts: tuple[dict[str, Any], dict[str, Any]] = {"denoising_end": 0.6}, {"denoising_start": 0.6}
    settings = {"refiner_start": 0.6, "sampler": samplers[0], "refiner_sampler": samplers[1]}
    got = our_latents(ours, task, **settings)
    expected = in_sequence(theirs, task, samplers, *parts, scale=scale)
    assert relative_error(got, expected, REQUIRED, f"{task} {samplers}") <= REQUIRED
    unscaled = in_sequence(theirs, task, samplers, *parts)
    assert relative_error(got, unscaled, REQUIRED, "not rescaled") > 1000 * REQUIRED


@pytest.mark.parametrize("task", ["text", "image", "inpaint"])
def test_a_picture_refined_by_strength(ours: Pipeline, theirs: Theirs, task: str) -> None:
    refiner = {"strength": 0.5, "aesthetic_score": 3.0, "negative_aesthetic_score": 1.0, "guidance_scale": 3.0}
    expected = in_sequence(theirs, task, (EULER, DDIM), {}, {**refiner, "num_inference_steps": 6})
    settings: dict[str, Any] = {"refiner_strength": 0.5, "refiner_steps": 6, "refiner_guidance": 3.0}
    settings |= {"aesthetic_score": 3.0, "negative_aesthetic_score": 1.0, "refiner_sampler": "ddim"}
    got = our_latents(ours, task, **settings)
    assert relative_error(got, expected, REQUIRED, task) <= REQUIRED


def test_an_ensemble_is_two_pipelines(models: Models, ours: Pipeline) -> None:
    base, refiner = (Pipeline.load(models.bundle(name)) for name in ("epsilon", "refiner"))
    handed = our_latents(base, denoising_end=0.5, sampler=ANCESTRAL)
    assert np.array_equal(our_latents(ours, denoising_end=0.5, sampler=ANCESTRAL), handed)
    alone = our_latents(refiner, image=handed, denoising_start=0.5, size=None)
    whole = our_latents(ours, refiner_start=0.5, sampler=ANCESTRAL, refiner_sampler=EULER)
    assert relative_error(whole, alone, 1e-6, "latents") <= 1e-6


def test_what_a_mask_keeps_stays_between_two_conventions(ours: Pipeline) -> None:
    kept: dict[str, NDArray[np.float32]] = {}
    for sampler in (EULER, DDIM):
        settings = {"refiner_start": 0.6, "sampler": EULER, "refiner_sampler": sampler}
        kept[sampler] = our_latents(ours, "inpaint", **settings)[..., -1, :]
    assert np.array_equal(kept[EULER], kept[DDIM])


def test_a_batch_is_its_single_runs(ours: Pipeline) -> None:
    """Six pictures in four slots."""
    settings: dict[str, Any] = {"refiner_start": 0.6, "sampler": ANCESTRAL}
    batch = our_latents(ours, seed=range(6), **settings)
    single = np.concatenate([our_latents(ours, seed=seed, **settings) for seed in range(6)])
    assert relative_error(batch, single, 1e-5, "latents") <= 1e-5


def test_one_result_one_progress_and_all_steps_in_order(ours: Pipeline) -> None:
    told: list[tuple[str, int, int]] = []
    steps: list[Step] = []
    seen: list[Any] = []

    def callback(step: Step) -> None:
        steps.append(step)
        seen.append((step.latents(), step.preview().shape))

    settings: dict[str, Any] = {"seed": (1, 2), "steps": STEPS, "size": SIZE, "refiner_start": 0.6}
    result = ours(PROMPT, progress=lambda *event: told.append(event), callback=callback, **settings)
    assert told == [("denoising", n, 16) for n in range(2, 17, 2)] + [("decoding", n, 2) for n in (1, 2)]
    assert [(step.picture, step.done, step.total) for step in steps] == [(p, n, 8) for n in range(1, 9) for p in (0, 1)]
    assert steps[-1].seconds_left == 0
    assert np.array_equal(seen[-1][0], result.latents[1])
    assert {shape for _, shape in seen} == {(8, 12, 3)}
    assert [image.size for image in result.images] == [SIZE, SIZE]
    assert result.refiner is not None
    assert (result.settings.denoising_end, result.refiner.denoising_start) == (0.6, 0.6)
    assert ours(PROMPT, seed=1, steps=2, size=SIZE, output="latents").refiner is None


def test_guidance_ends_after_a_part_of_both(ours: Pipeline) -> None:
    """Six of eight steps are guided: all five of the base's, and one of the refiner's three."""
    listed = our_latents(ours, guidance=[GUIDANCE] * 4 + [1.0], refiner_guidance=1.0, refiner_start=0.6)
    assert np.array_equal(our_latents(ours, guidance_end=0.5, refiner_start=0.6), listed)
    whole, most = (our_latents(ours, guidance_end=end, refiner_start=0.6) for end in (1.0, 0.75))
    assert not np.array_equal(whole, most)
    assert not np.array_equal(most, listed)


def test_the_refiner_takes_the_sampler_that_is_named(ours: Pipeline) -> None:
    """With its options; or another; or its checkpoint's."""
    karras = SamplerOptions(sigmas="karras")
    named = our_latents(ours, refiner_start=0.6, sampler="dpmpp_2m", options=karras)
    both: dict[str, Any] = {"sampler": "dpmpp_2m", "options": karras}
    both |= {"refiner_sampler": "dpmpp_2m", "refiner_options": karras}
    assert np.array_equal(our_latents(ours, refiner_start=0.6, **both), named)
    other = our_latents(
        ours, refiner_start=0.6, **both | {"refiner_sampler": "DPM++ 2M", "refiner_options": SamplerOptions()}
    )
    assert not np.array_equal(other, named)


def test_embeddings_are_shared_as_the_text_encoder_is(ours: Pipeline) -> None:
    texts = {"negative_prompt": "blue", "refiner_start": 0.6}
    embeds = {"prompt_embeds": ours.encode(PROMPT), "negative_prompt_embeds": ours.encode("blue")}
    options: dict[str, Any] = {"steps": STEPS, "seed": SEED, "size": SIZE, "output": "latents"}
    given = ours(refiner_start=0.6, **embeds, **options).latents
    assert relative_error(given, our_latents(ours, **texts), 1e-5, "latents") <= 1e-5
    assert isinstance(embeds["prompt_embeds"], PromptEmbeds)


def test_a_learned_word_is_the_refiners_too(models: Models, tmp_path: Path) -> None:
    """Of the second text encoder's vectors; alone a refiner has no use for the first's."""
    from safetensors.numpy import save_file

    generator = np.random.default_rng(0)
    widths = {"clip_l": 48, "clip_g": 80}
    save_file(
        {name: generator.standard_normal((2, n)).astype(np.float32) for name, n in widths.items()},
        tmp_path / "w.safetensors",
    )
    both, base, refiner = (
        Pipeline.load(models.bundle(*n)) for n in (("epsilon", "refiner"), ("epsilon",), ("refiner",))
    )
    options: dict[str, Any] = {"steps": STEPS, "seed": SEED, "output": "latents"}
    plain = both("a new", size=SIZE, refiner_start=0.5, **options).latents
    for pipe in (both, base, refiner):
        pipe.load_textual_inversion(tmp_path / "w.safetensors", "new")
    handed = base("a new", size=SIZE, denoising_end=0.5, **options).latents
    expected = refiner("a new", image=handed, denoising_start=0.5, **options).latents
    got = both("a new", size=SIZE, refiner_start=0.5, **options).latents
    assert relative_error(got, expected, 1e-6, "latents") <= 1e-6
    assert not np.array_equal(got, plain)
    save_file({"clip_l": np.zeros((2, 48), np.float32)}, tmp_path / "l.safetensors")
    with pytest.raises(UsageError, match="no textual inversion for this model") as caught:
        refiner.load_textual_inversion(tmp_path / "l.safetensors")
    assert "[n, 80] for text_encoder_2" in caught.value.expected


def test_embeddings_of_another_text_encoder_are_refused(models: Models, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(models.bundle("epsilon", "refiner"), tmp_path / "bundle"))
    manifest = read_manifest(bundle)
    target = manifest.targets[0]
    store, entry = BlobStore(bundle), target.refiner["text_encoder_2"]
    with store.lock():  # the same graph in another file
        graph = onnx.load(store.path(entry.file), load_external_data=False)
        graph.doc_string = "another"
        file = store.put_bytes(graph.SerializeToString())
    engines = {**target.refiner, "text_encoder_2": replace(entry, file=file)}
    write_manifest(bundle, replace(manifest, targets=(replace(target, refiner=engines),)))
    pipe = Pipeline.load(bundle)
    embeds = pipe.encode(PROMPT)
    with pytest.raises(UsageError, match="prompt_embeds cannot be used with this refiner") as caught:
        pipe(prompt_embeds=embeds, refiner_start=0.5, steps=STEPS, size=SIZE)
    assert "as text" in caught.value.fix
    assert our_latents(pipe, refiner_start=0.5).shape == (1, 4, 8, 12)


def test_what_is_the_same_is_opened_once(ours: Pipeline) -> None:
    assert ours._experts is not None
    first, second = ours._experts
    base, refiner = first.loaded, first.loaded.refiner
    assert refiner is not None
    assert refiner.decoder is base.decoder
    assert refiner.encoders[0].engine is base.encoders[1].engine
    assert refiner.step is not base.step
    assert second is not None
    assert second.vae is first.vae


def test_a_refiner_can_be_left_out(models: Models, ours: Pipeline) -> None:
    alone = Pipeline.load(models.bundle("epsilon", "refiner"), refiner=False)
    assert np.array_equal(our_latents(alone), our_latents(ours))
    with pytest.raises(UsageError, match="refiner_start needs a refiner"):
        our_latents(alone, refiner_start=0.8)


LEVELS = [name for name in SAMPLERS if not name.startswith("edm")]


@pytest.mark.parametrize("second", LEVELS)
def test_the_factor_brings_a_level_to_the_others_convention(second: str) -> None:
    """What Euler leaves, scaled, has the noise and the picture that the other's first step expects."""
    config = {"_class_name": EULER, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
              "noise_sampler_seed": 1, "original_inference_steps": 50}  # fmt: skip
    ends = make_table(config, 20, "euler", denoising_end=0.6).ends
    begins = make_table(config, 20, second, denoising_start=0.6).begins
    scale = hand_over_scale(ends, begins)
    assert scale * ends.image == pytest.approx(begins.image, rel=0.1)  # to where its steps lie
    assert hand_over_scale(begins, begins) == pytest.approx(1)
    assert hand_over_scale(Mix(1.0, 0.0), begins) == 1


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"refiner_start": 1.5}, ["refiner_start", "0 to 1"]),
        ({"refiner_start": -0.1}, ["refiner_start", "0 to 1"]),
        ({"refiner_start": "0.8"}, ["refiner_start", "0 to 1"]),
        ({"refiner_strength": math.nan}, ["refiner_strength", "0 to 1"]),
        ({"refiner_start": 0.0}, ["refiner_start leaves no step to the base model", "refiner_start=0"]),
        ({"refiner_start": 1.0}, ["refiner_start leaves no step to the refiner", "refiner_start=1"]),
        ({"refiner_start": 0.99}, ["leaves no step to the refiner", "one step for each"]),
        ({"refiner_strength": 0.05}, ["refiner_strength leaves no step to the refiner", "one step for each"]),
        ({"refiner_start": 0.5, "image": picture(), "strength": 0.2, "size": None}, ["refiner_start leaves no step"]),
        ({"image": picture(), "strength": 0.01, "refiner_start": 0.5, "size": None}, ["strength leaves no step"]),
        ({"refiner_start": 0.8, "refiner_strength": 0.3}, ["two ways", "refiner_start and refiner_strength"]),
        ({"refiner_sampler": "ddim"}, ["refiner_sampler needs", "neither"]),
        ({"refiner_steps": 10}, ["refiner_steps needs", "neither"]),
        ({"refiner_start": 0.6, "refiner_steps": 0}, ["refiner_steps", "at least 1"]),
        ({"refiner_start": 0.6, "refiner_guidance": -1.0}, ["refiner_guidance", "0 to 1000"]),
        ({"refiner_start": 0.6, "refiner_sampler": "dddim"}, ["did you mean ddim?"]),
        ({"refiner_start": 0.6, "refiner_options": {}}, ["refiner_options", "SamplerOptions"]),
        ({"refiner_start": 0.6, "aesthetic_score": 11.0}, ["aesthetic_score", "0 to 10"]),
        ({"denoising_end": 0.8, "output": "image"}, ["denoising_end", "refiner_start=0.8"]),
    ],
)
def test_what_cannot_be(ours: Pipeline, settings: dict[str, Any], parts: list[str]) -> None:
    def started(*_: object) -> None:
        pytest.fail("it started")

    with pytest.raises(UsageError) as caught:
        our_latents(ours, **settings, progress=started)
    print(caught.value)
    assert all(part in str(caught.value) for part in parts), caught.value
    assert caught.value.got or "unknown" in caught.value.what
    assert caught.value.expected


@pytest.mark.parametrize(
    "settings", [{"refiner_start": 0.8}, {"refiner_strength": 0.3}, {"refiner_steps": 5}, {"refiner_sampler": "ddim"}]
)
def test_a_bundle_without_a_refiner(models: Models, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(settings))} needs a refiner") as caught:
        our_latents(Pipeline.load(models.bundle("epsilon")), **settings)
    assert "without one" in caught.value.got
    assert "--refiner" in caught.value.fix
