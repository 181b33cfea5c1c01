"""What a caller is told step by step, and guidance that changes from step to step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeness import relative_error

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.steps import Step

pytestmark = pytest.mark.usefixtures("one_torch_thread")

REQUIRED = 1e-3  # largest difference over largest magnitude
PROMPT = "a large red circle on a white background"


@pytest.fixture(scope="module")
def ours(demo_bundle: Path) -> Pipeline:
    return Pipeline.load(demo_bundle)


def test_every_step_of_every_picture_is_told(ours: Pipeline) -> None:
    """Five pictures in four slots: the last one starts when another is done."""
    told: list[tuple[int, int]] = []
    left: list[float] = []
    last: dict[int, Any] = {}

    def callback(step: Step) -> None:
        told.append((step.picture, step.done))
        left.append(step.seconds_left)
        assert step.total == 3
        assert step.preview().shape == (12, 16, 3)
        last[step.picture] = step.latents(), step.estimate()

    result = ours(PROMPT, seed=range(5), steps=3, size=(128, 96), output="latents", callback=callback)
    assert sorted(told) == [(picture, done) for picture in range(5) for done in (1, 2, 3)]
    assert left[-1] == 0
    assert all(seconds > 0 for seconds in left[:-1])
    for picture, (latents, estimate) in last.items():
        assert np.array_equal(latents, result.latents[picture])
        assert relative_error(estimate, latents, 1e-4, "estimate") <= 1e-4  # the last step goes all the way


def test_a_preview_resembles_the_picture(ours: Pipeline) -> None:
    """Its factors are fitted to the demo model's own VAE: lightness goes with the picture's."""
    previews: list[Any] = []
    result = ours(PROMPT, seed=7, steps=10, callback=lambda step: previews.append(step.preview()))
    small = np.asarray(result.images[0].reduce(8), float).mean(axis=2)
    likeness = np.corrcoef(small.ravel(), previews[-1].astype(float).mean(axis=2).ravel())[0, 1]
    print(f"correlation: measured {likeness:.3f}, required 0.8")
    assert likeness >= 0.8


def test_an_exception_in_a_callback_ends_the_request(ours: Pipeline) -> None:
    expected = ours(PROMPT, seed=7, steps=4, output="latents").latents

    def stop(step: Step) -> None:
        if step.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ours(PROMPT, seed=(1, 2), steps=4, output="latents", callback=stop)
    assert np.array_equal(ours(PROMPT, seed=7, steps=4, output="latents").latents, expected)


@pytest.mark.parametrize("seeds", [(7,), (7, 8, 9, 10, 11)])
def test_guidance_that_ends(ours: Pipeline, demo_model: Path, seeds: tuple[int, ...]) -> None:
    """Against diffusers (float32, the checkpoint's Euler, a generator for each picture), whose callback ends it."""
    import torch
    from diffusers import StableDiffusionXLPipeline

    theirs = StableDiffusionXLPipeline.from_pretrained(demo_model, variant="fp16", dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)

    def switch_off(pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == 4:  # five steps are done
            pipe._guidance_scale = 0.0
            return {name: value.chunk(2)[-1] for name, value in tensors.items()}
        return tensors

    expected = theirs(
        [PROMPT] * len(seeds),
        num_inference_steps=8,
        guidance_scale=6.0,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        output_type="latent",
        callback_on_step_end=switch_off,
        callback_on_step_end_tensor_inputs=["prompt_embeds", "add_text_embeds", "add_time_ids"],
    ).images.numpy()
    common: dict[str, Any] = {"seed": seeds, "steps": 8, "output": "latents"}
    got = ours(PROMPT, guidance=6.0, guidance_end=0.62, **common).latents
    assert relative_error(got, expected, REQUIRED, "latents") <= REQUIRED
    listed = ours(PROMPT, guidance=[6.0] * 5 + [1.0] * 3, **common).latents
    assert np.array_equal(listed, got)
    whole = ours(PROMPT, guidance=6.0, **common).latents
    assert relative_error(whole, expected, REQUIRED, "guided to the end") > REQUIRED


def test_guidance_of_a_sampler_of_second_order(ours: Pipeline) -> None:
    """Both evaluations of a step have its guidance."""
    common: dict[str, Any] = {"seed": 7, "steps": 4, "sampler": "heun", "output": "latents"}
    one, listed = (ours(PROMPT, guidance=value, **common).latents for value in (5.0, [5.0, 5.0, 5.0, 5.0]))
    assert np.array_equal(one, listed)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"guidance": [5.0, 5.0]}, ["2", "one number, or 4"]),
        ({"guidance": [5.0, float("nan"), 5.0, 5.0]}, ["guidance", "0 to 1000"]),
        ({"guidance": []}, ["guidance"]),
        ({"guidance_end": 1.5}, ["guidance_end", "0 to 1"]),
    ],
)
def test_guidance_that_cannot_be(ours: Pipeline, settings: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        ours(PROMPT, steps=4, **settings)
    assert all(part in str(caught.value) for part in parts), caught.value
