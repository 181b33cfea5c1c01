"""The pipeline on the demo model: batches, slots, progress, interrupts, refusals. Parity: test_parity.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeness import relative_error

from sdxl_trt.errors import PromptTooLong, RunError, UnknownName, UnsupportedSize, UsageError
from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.conditioning import Conditioner
from sdxl_trt.runtime.device import HostDevice
from sdxl_trt.runtime.images.preview import to_pixels
from sdxl_trt.runtime.loading import Loaded, load
from sdxl_trt.runtime.loop import Loop
from sdxl_trt.runtime.noise import TorchGenerator
from sdxl_trt.runtime.request import Request
from sdxl_trt.runtime.resolving import resolve
from sdxl_trt.runtime.samplers import make_table
from sdxl_trt.runtime.slots import SlotRequest

REQUIRED = 1e-3  # largest difference over largest magnitude
PROMPT = "a large red circle on a white background"
LARGE_SEED = 2**40 + 11


@pytest.fixture(scope="module")
def loaded(demo_bundle: Path) -> Loaded:
    return load(demo_bundle)


@pytest.fixture(scope="module")
def ours(loaded: Loaded) -> Pipeline:
    return Pipeline(loaded, HostDevice())


def slot_request(loaded: Loaded, seed: int, *, steps: int, guidance: float) -> SlotRequest:
    """What the pipeline makes of these settings."""
    asked = Request(prompt=PROMPT, seed=seed, steps=steps, guidance=guidance)
    settings = resolve(asked, loaded.model, loaded.target.profile)
    prompt, negative = Conditioner(loaded.encoders, HostDevice(), model=loaded.model, most_tokens=308)(settings)
    return SlotRequest(
        table=make_table(loaded.model.scheduler, steps),
        noise=TorchGenerator(seed).normal(settings.latent_shape),
        source=TorchGenerator(seed),
        prompt=prompt,
        negative=negative,
        guidance=guidance,
    )


def test_slots_at_different_steps_share_a_call_and_no_nan(ours: Pipeline, loaded: Loaded) -> None:
    """A step ahead, one with guidance and one without, and between them one that is all NaN."""
    loop = Loop(loaded.step, HostDevice(), slots=3, height=16, width=16, tokens=77)
    guided = loop.join(slot_request(loaded, 7, steps=5, guidance=5.0))
    loop.step()
    broken_request = slot_request(loaded, 8, steps=6, guidance=5.0)
    broken_request.noise[:] = np.nan
    broken = loop.join(broken_request)
    plain = loop.join(slot_request(loaded, 9, steps=4, guidance=1.0))
    results = {}
    while len(results) < 3:
        for slot in loop.step():
            results[slot] = loop.latents(slot)
            loop.leave(slot)
    assert np.isnan(results[broken]).all()
    for slot, seed, steps, guidance in ((guided, 7, 5, 5.0), (plain, 9, 4, 1.0)):
        alone = ours(PROMPT, seed=seed, steps=steps, guidance=guidance, output="latents").latents[0]
        assert relative_error(results[slot], alone, REQUIRED, f"seed {seed}") <= REQUIRED


def test_more_seeds_than_slots_take_turns(ours: Pipeline) -> None:
    most = ours.target.profile.slots.max
    seeds = tuple(range(most + 1))
    result = ours(PROMPT, seed=seeds, steps=2, output="latents")
    assert result.seeds == seeds
    alone = ours(PROMPT, seed=most, steps=2, output="latents").latents
    assert relative_error(result.latents[-1:], alone, REQUIRED, "the last seed") <= REQUIRED


def test_pixels_are_rounded_as_diffusers_rounds() -> None:
    import torch
    from diffusers.image_processor import VaeImageProcessor

    values = np.random.default_rng(0).uniform(-1.3, 1.3, (1, 3, 40, 56)).astype(np.float32)
    values[0, 0, 0, :5] = [-1, 1, 0, 1 / 255, 2]
    wanted = np.asarray(VaeImageProcessor().postprocess(torch.from_numpy(values), output_type="pil")[0])
    np.testing.assert_array_equal(to_pixels(values[0]), wanted)


def test_the_resolved_settings_make_the_same_picture_again(ours: Pipeline) -> None:
    first = ours(PROMPT, steps=2, guidance=3.0)
    again = ours(first.settings.prompt, steps=first.settings.steps, guidance=first.settings.guidance, seed=first.seeds)
    np.testing.assert_array_equal(first.latents, again.latents)
    np.testing.assert_array_equal(np.asarray(first.images[0]), np.asarray(again.images[0]))


def test_progress_counts_every_step_and_picture(ours: Pipeline) -> None:
    told: list[tuple[str, int, int]] = []
    ours(PROMPT, seed=(1, 2), steps=3, progress=lambda *event: told.append(event))
    assert told == [("denoising", done, 6) for done in (2, 4, 6)] + [("decoding", done, 2) for done in (1, 2)]


def test_an_interrupt_leaves_within_a_step_and_the_pipeline_as_it_was(ours: Pipeline) -> None:
    before = ours(PROMPT, seed=1, steps=2, output="latents").latents

    def interrupt(_stage: str, done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ours("a blue star", seed=2, steps=30, progress=interrupt)
    np.testing.assert_array_equal(ours(PROMPT, seed=1, steps=2, output="latents").latents, before)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"steps": 0}, UsageError),
        ({"size": (130, 128)}, UnsupportedSize),
        ({"sampler": "eular"}, UnknownName),
        ({"prompt": "a red circle " * 101}, PromptTooLong),
        ({"negative_prompt": "a red circle " * 101}, PromptTooLong),
        ({"output": "pixels"}, UsageError),
        ({"noise": np.zeros((1, 4, 8, 8), np.float32)}, UsageError),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_request_starts_nothing(ours: Pipeline, settings: dict[str, Any], error: type[UsageError]) -> None:
    def started(*_: object) -> None:
        pytest.fail("it started")

    with pytest.raises(error):
        ours(**{"prompt": PROMPT, "steps": 2, **settings}, progress=started)


def test_infinite_latents_are_an_error_that_names_the_stage(ours: Pipeline) -> None:
    noise = np.full((1, 4, 16, 16), 1e37, np.float32)  # finite, but not once it is squared
    with pytest.raises(RunError, match="denoising gave NaN or infinity") as caught:
        ours(PROMPT, noise=noise, steps=2)
    assert caught.value.got
    assert caught.value.fix


def test_a_request_object_and_keywords_are_the_same(ours: Pipeline) -> None:
    asked = Request(prompt=PROMPT, seed=3, steps=2)
    np.testing.assert_array_equal(
        ours.run(asked, output="latents").latents, ours(PROMPT, seed=3, steps=2, output="latents").latents
    )
