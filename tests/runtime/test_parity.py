"""The whole pipeline against diffusers' StableDiffusionXLPipeline, on the demo model and on tiny SDXLs.

Both sides run the same checkpoint in float32 (float16 weights upcast) on the CPU, with the checkpoint's own scheduler
config (Euler) and one CPU generator per image; final latents are compared, where no VAE hides anything.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeness import relative_error
from models import Models
from numpy.typing import NDArray

from sdxl_trt.runtime import Pipeline, expert
from sdxl_trt.runtime.images.preview import to_pixels
from sdxl_trt.runtime.table import Table
from sdxl_trt.spec import Column

pytestmark = pytest.mark.usefixtures("one_torch_thread")

REQUIRED = 1e-3  # largest difference over largest magnitude
PROMPT = "a large red circle on a white background"
SEEDS = (0, 7, 2**40 + 11)


def diffusers_pipeline(checkpoint: Path) -> Any:
    import torch
    from diffusers import StableDiffusionXLPipeline

    half = any((checkpoint / "unet").glob("*.fp16.safetensors"))
    options = {"variant": "fp16"} if half else {}
    reference = StableDiffusionXLPipeline.from_pretrained(checkpoint, dtype=torch.float32, **options)
    reference.set_progress_bar_config(disable=True)
    return reference


@pytest.fixture(scope="module")
def ours(demo_bundle: Path) -> Pipeline:
    return Pipeline.load(demo_bundle)


@pytest.fixture(scope="module")
def theirs(demo_model: Path) -> Any:
    return diffusers_pipeline(demo_model)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A request in our terms."""

    seeds: tuple[int, ...] = (7,)
    size: tuple[int, int] = (128, 128)
    steps: int = 5
    guidance: float = 5.0
    more: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        width, height = self.size
        more = "".join(f"-{name}={value}" for name, value in self.more.items()).replace(" ", "")
        return f"{self.seeds}-{width}x{height}-{self.steps}-{self.guidance:g}{more}".replace(" ", "")


SIZES, STEPS, GUIDANCE = ((128, 128), (96, 160), (136, 120)), (1, 5, 30), (1.0, 5.0, 12.0)
NEGATIVES: tuple[dict[str, Any], ...] = ({}, {"negative_prompt": ""}, {"negative_prompt": "a small blue square"})
MATRIX = [
    Case(seeds=SEEDS, size=size, steps=steps, guidance=guidance, more=negative)
    for size, steps, guidance, negative in itertools.product(SIZES, STEPS, GUIDANCE, NEGATIVES)
]
"""Everything with everything, three seeds as one batch."""

CASES = [
    *(Case(seeds=(seed,)) for seed in SEEDS),
    Case(more={"original_size": (64, 96), "target_size": (200, 120), "crop_top_left": (16, 40)}),
    Case(
        more={
            "negative_prompt": "",
            "negative_original_size": (64, 80),
            "negative_target_size": (100, 128),
            "negative_crop_top_left": (8, 0),
            "crop_top_left": (0, 24),
        }
    ),
    Case(more={"negative_original_size": (64, 80), "crop_top_left": (0, 24)}),  # without its partner: not used
    Case(more={"prompt_2": "a blue star", "negative_prompt": "a cross", "negative_prompt_2": "a heart"}),
    Case(more={"negative_prompt_2": "a heart"}),  # without negative_prompt: zeros
    Case(guidance=9.0, more={"guidance_rescale": 0.7, "negative_prompt": ""}),
    Case(more={"prompt": ""}),
    Case(more={"noise": 3}),
]

DIFFUSERS_NAMES = {
    "crop_top_left": "crops_coords_top_left",
    "negative_crop_top_left": "negative_crops_coords_top_left",
}


def our_latents(pipe: Pipeline, case: Case) -> NDArray[np.float32]:
    settings = {
        "prompt": PROMPT,
        "seed": case.seeds,
        "size": case.size,
        "steps": case.steps,
        "guidance": case.guidance,
        **case.more,
    }
    if "noise" in case.more:
        settings["noise"] = own_noise(case)
    return pipe(output="latents", **settings).latents


def their_latents(pipe: Any, case: Case) -> NDArray[np.float32]:
    import torch

    width, height = case.size
    settings: dict[str, Any] = {"prompt": PROMPT}
    for name, value in case.more.items():
        reverse = name.endswith("_size")  # theirs are (height, width)
        settings[DIFFUSERS_NAMES.get(name, name)] = value[::-1] if reverse else value
    if settings.pop("noise", None):
        settings["latents"] = torch.from_numpy(own_noise(case))
    latents = pipe(
        **settings,
        width=width,
        height=height,
        num_inference_steps=case.steps,
        guidance_scale=case.guidance,
        num_images_per_prompt=len(case.seeds),
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in case.seeds],
        output_type="latent",
    ).images
    assert latents.dtype == torch.float32
    return np.asarray(latents.numpy())


def own_noise(case: Case) -> NDArray[np.float32]:
    width, height = case.size
    rng = np.random.default_rng(case.more["noise"])
    return rng.standard_normal((len(case.seeds), 4, height // 8, width // 8), np.float32)


@pytest.mark.parametrize("case", [*MATRIX, *CASES], ids=str)
def test_latents_are_diffusers(ours: Pipeline, theirs: Any, case: Case) -> None:
    assert relative_error(our_latents(ours, case), their_latents(theirs, case), REQUIRED, str(case)) <= REQUIRED


def test_one_percent_in_one_coefficient_is_noticed(
    ours: Pipeline, theirs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the bound above is worth: ε weighs 1 % more in one step out of five."""
    exact = expert.make_table

    def perturbed(*arguments: Any, **options: Any) -> Table:
        table = exact(*arguments, **options)
        columns = table.columns.copy()
        columns[2, Column.output.start] *= 1.01
        return replace(table, columns=columns)

    case = Case()
    wanted = their_latents(theirs, case)
    monkeypatch.setattr(expert, "make_table", perturbed)
    error = relative_error(our_latents(ours, case), wanted, REQUIRED, "one coefficient 1 % off, which must fail")
    assert error > REQUIRED


def test_a_batch_is_its_single_runs(ours: Pipeline) -> None:
    case = Case(seeds=(0, 7, SEEDS[2]))
    together = our_latents(ours, case)
    for index, seed in enumerate(case.seeds):
        alone = our_latents(ours, replace(case, seeds=(seed,)))
        assert relative_error(together[index : index + 1], alone, REQUIRED, f"seed {seed}") <= REQUIRED


TINY_CASES = [
    Case(seeds=SEEDS, steps=30),
    Case(size=(136, 120), guidance=12.0, more={"negative_prompt": ""}),
    Case(size=(96, 160), guidance=1.0, steps=1),
    Case(more={"original_size": (64, 96), "crop_top_left": (16, 40), "prompt_2": "a blue star"}),
]


@pytest.mark.parametrize("name", ["epsilon", "v", "relative"])
def test_latents_of_tiny_models(models: Models, name: str) -> None:
    """Other widths and blocks, ε and v prediction, trailing spacing, end-token pooling, shards."""
    ours, theirs = Pipeline.load(models.bundle(name)), diffusers_pipeline(models.checkpoint(name))
    assert theirs.scheduler.config.prediction_type == ("v_prediction" if name == "v" else "epsilon")
    for case in TINY_CASES:
        error = relative_error(our_latents(ours, case), their_latents(theirs, case), REQUIRED, f"{name} {case}")
        assert error <= REQUIRED


def test_pictures_are_diffusers(ours: Pipeline, theirs: Any) -> None:
    check_pictures(ours, theirs)


def test_pictures_of_normalised_latents_are_diffusers(models: Models) -> None:
    """Playground v2.5's: the VAE's latents have a mean and a deviation in each channel."""
    theirs = diffusers_pipeline(models.checkpoint("relative"))
    assert theirs.vae.config.latents_std is not None
    check_pictures(Pipeline.load(models.bundle("relative")), theirs)


def check_pictures(ours: Pipeline, theirs: Any) -> None:
    """Decoded and rounded: at most a few pixels lie so near to a rounding edge that they differ by one."""
    import torch

    generator = torch.Generator("cpu").manual_seed(7)
    wanted = theirs(PROMPT, num_inference_steps=5, generator=generator, width=136, height=120).images[0]
    result = ours(PROMPT, seed=7, steps=5, size=(136, 120))
    assert (result.images[0].mode, result.images[0].size) == ("RGB", (136, 120))
    difference = np.abs(np.asarray(result.images[0], np.int16) - np.asarray(wanted, np.int16))
    share = float((difference > 0).mean())
    print(f"pixels that differ: measured {share:.1e} by at most {difference.max()}, required 1e-2 by at most 1")
    assert difference.max() <= 1
    assert share <= 1e-2


def test_pixels_are_rounded_as_diffusers_rounds(theirs: Any) -> None:
    import torch

    values = np.random.default_rng(0).uniform(-1.3, 1.3, (1, 3, 40, 56)).astype(np.float32)
    values[0, 0, 0, :5] = [-1, 1, 0, 1 / 255, 2]
    wanted = np.asarray(theirs.image_processor.postprocess(torch.from_numpy(values), output_type="pil")[0])
    np.testing.assert_array_equal(to_pixels(values[0]), wanted)
