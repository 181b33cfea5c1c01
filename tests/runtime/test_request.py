"""Requests: what is filled in, and what is refused before anything starts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sdxl_trt.errors import UnsupportedSize, UsageError
from sdxl_trt.runtime.request import Request
from sdxl_trt.runtime.resolving import check_noise, resolve
from sdxl_trt.runtime.samplers import SamplerOptions
from sdxl_trt.spec import ModelSpec, Profile

PROFILE = Profile.make(smallest=(64, 64), best=(192, 96), largest=(256, 256), batch=4)


def resolved(model: ModelSpec, **settings: Any) -> Any:
    return resolve(Request(**{"prompt": "a red circle", "seed": 0, **settings}), model, PROFILE)


def test_defaults_are_filled_in(toy_model: ModelSpec) -> None:
    settings = resolve(Request(prompt="a red circle"), toy_model, PROFILE)
    assert (settings.steps, settings.guidance, settings.size) == (30, 5.0, (128, 128))
    assert settings.guided
    assert settings.prompt_2 == "a red circle"
    assert settings.negative_prompt is None
    assert settings.latent_shape == (4, 16, 16)
    assert len(settings.seeds) == 1
    assert 0 <= settings.seeds[0] < 2**32
    assert settings.seeds != resolve(Request(prompt="a red circle"), toy_model, PROFILE).seeds


TURBO = {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}


@pytest.mark.parametrize(
    ("name", "scheduler", "steps", "guidance", "sampler", "options"),
    [
        ("sdxl-turbo", TURBO, 1, 0.0, None, SamplerOptions()),
        ("lcm", {"_class_name": "LCMScheduler"}, 4, 0.0, None, SamplerOptions()),
        ("tcd", {"_class_name": "TCDScheduler"}, 4, 0.0, None, SamplerOptions(eta=0.3)),
        ("sdxl_lightning_8step", None, 8, 0.0, "euler", SamplerOptions(spacing="trailing")),
        ("Hyper-SDXL-1step", None, 1, 0.0, "tcd", SamplerOptions(eta=1.0)),
    ],
)
def test_distilled_models_have_defaults_that_a_request_replaces(
    toy_model: ModelSpec,
    name: str,
    scheduler: dict[str, Any] | None,
    steps: int,
    guidance: float,
    sampler: str | None,
    options: SamplerOptions,
) -> None:
    model = replace(toy_model, name=name, scheduler=scheduler or toy_model.scheduler)
    settings = resolved(model)
    assert (settings.steps, settings.guidance, settings.guided) == (steps, guidance, False)
    assert (settings.sampler, settings.options) == (sampler, options)
    own = {"steps": 7, "guidance": 2.0, "sampler": "heun", "options": SamplerOptions(sigmas="karras")}
    settings = resolved(model, **own)
    assert {key: getattr(settings, key) for key in own} == own


def test_a_unet_that_is_told_the_guidance_has_one_row(toy_model: ModelSpec) -> None:
    model = replace(toy_model, unet=replace(toy_model.unet, guidance_embedding=8))
    settings = resolved(model)
    assert (settings.sampler, settings.steps, settings.guidance) == ("LCMScheduler", 4, 8.0)
    assert settings.guidance_embedded
    assert not settings.guided


def test_without_the_models_own_size_the_engines_best_is_the_default(toy_model: ModelSpec) -> None:
    profile = Profile.make(smallest=(136, 64), best=(192, 96), largest=(256, 256), batch=1)
    assert resolve(Request(prompt=""), toy_model, profile).size == (192, 96)


def test_time_ids_have_height_before_width(toy_model: ModelSpec) -> None:
    settings = resolved(toy_model, size=(160, 96), crop_top_left=(3, 4), original_size=(300, 200))
    assert settings.micro.time_ids().tolist() == [200, 300, 3, 4, 96, 160]
    assert settings.negative_micro == settings.micro


def test_negative_sizes_count_when_both_are_given(toy_model: ModelSpec) -> None:
    sizes = {"size": (160, 96), "negative_original_size": (30, 20), "crop_top_left": (5, 6)}
    assert resolved(toy_model, **sizes).negative_micro == resolved(toy_model, **sizes).micro
    both = resolved(toy_model, **sizes, negative_target_size=(70, 60))
    assert both.negative_micro.time_ids().tolist() == [20, 30, 0, 0, 60, 70]
    assert both.micro.time_ids().tolist() == [96, 160, 5, 6, 96, 160]


@pytest.mark.parametrize(
    ("seed", "seeds"),
    [(7, (7,)), ((0, 7, 9), (0, 7, 9)), ([2**64 - 1, -(2**63)], (2**64 - 1, -(2**63))), (range(2), (0, 1))],
)
def test_each_seed_is_a_picture(toy_model: ModelSpec, seed: Any, seeds: tuple[int, ...]) -> None:
    assert resolved(toy_model, seed=seed).seeds == seeds


def test_guidance_of_one_and_less_is_off(toy_model: ModelSpec) -> None:
    assert [resolved(toy_model, guidance=g).guided for g in (0, 0.5, 1, 1.01)] == [False, False, False, True]


def test_empty_second_prompts_are_as_if_not_given(toy_model: ModelSpec) -> None:
    assert resolved(toy_model, prompt_2="").prompt_2 == "a red circle"


@pytest.mark.parametrize(
    ("settings", "got"),
    [
        ({"prompt": 7}, "int"),
        ({"prompt": None}, "NoneType"),
        ({"prompt": ["a", "b"]}, "list"),
        ({"prompt_2": b"x"}, "bytes"),
        ({"negative_prompt": 1.5}, "float"),
        ({"negative_prompt_2": ()}, "tuple"),
        ({"sampler": 3}, "int"),
        ({"steps": 0}, "0"),
        ({"steps": -1}, "-1"),
        ({"steps": 2.0}, "2.0"),
        ({"steps": True}, "True"),
        ({"steps": "30"}, "'30'"),
        ({"guidance": math.nan}, "nan"),
        ({"guidance": math.inf}, "inf"),
        ({"guidance": -0.1}, "-0.1"),
        ({"guidance": 1e39}, "1e+39"),
        ({"guidance": "5"}, "'5'"),
        ({"guidance": 10**5000}, "an enormous integer"),
        ({"guidance_rescale": 1.5}, "1.5"),
        ({"guidance_rescale": math.nan}, "nan"),
        ({"seed": 2**64}, "18446744073709551616"),
        ({"seed": (0, -(2**63) - 1)}, "-9223372036854775809"),
        ({"seed": 1.0}, "1.0 (float)"),
        ({"seed": "7"}, "'7' (str)"),
        ({"seed": (0, None)}, "None"),
        ({"seed": ()}, "0 seeds"),
        ({"size": (128,)}, "(128,)"),
        ({"size": 128}, "128"),
        ({"size": "128x128"}, "'128x128'"),
        ({"size": (128.0, 128)}, "(128.0, 128)"),
        ({"size": (0, 128)}, "(0, 128)"),
        ({"size": ()}, "()"),
        ({"size": (10**5000, 8)}, "an enormous integer"),
        ({"original_size": 0}, "0"),
        ({"original_size": (0, 5)}, "(0, 5)"),
        ({"original_size": (10**400, 5)}, "(1000"),
        ({"target_size": (5, -5)}, "(5, -5)"),
        ({"crop_top_left": (-1, 0)}, "(-1, 0)"),
        ({"crop_top_left": (0, True)}, "(0, True)"),
        ({"negative_target_size": (1, 2, 3)}, "(1, 2, 3)"),
        ({"negative_original_size": 5}, "5"),
        ({"negative_crop_top_left": None}, "None"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_bad_value_is_refused_by_name(toy_model: ModelSpec, settings: dict[str, Any], got: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolved(toy_model, **settings)
    error = caught.value
    assert next(iter(settings)) in error.what or "seed" in settings
    assert got in error.got
    assert len(error.got) < 200
    assert error.expected
    assert error.fix


@pytest.mark.parametrize(("size", "got"), [((130, 128), "130x128"), ((512, 128), "512x128"), ((56, 128), "56x128")])
def test_a_size_the_engines_do_not_take_is_refused(toy_model: ModelSpec, size: tuple[int, int], got: str) -> None:
    with pytest.raises(UnsupportedSize) as caught:
        resolved(toy_model, size=size)
    assert caught.value.got == got


def test_noise_is_taken_as_it_is(toy_model: ModelSpec) -> None:
    settings = resolved(toy_model, seed=(1, 2), size=(160, 96))
    noise = np.random.default_rng(0).standard_normal((2, 4, 12, 20))
    taken = check_noise(noise, settings)
    assert taken.dtype == np.float32
    np.testing.assert_array_equal(taken, noise.astype(np.float32))
    assert check_noise(taken, settings) is taken


@pytest.mark.parametrize(
    ("noise", "got"),
    [
        (np.zeros((1, 4, 12, 20), np.float32), "float32 [1, 4, 12, 20]"),
        (np.zeros((2, 4, 20, 12), np.float32), "float32 [2, 4, 20, 12]"),
        (np.zeros((2, 4, 12, 20), np.int32), "int32 [2, 4, 12, 20]"),
        (np.full((2, 4, 12, 20), np.nan, np.float32), "float32 [2, 4, 12, 20], not finite"),
        ([[0.0]], "list"),
    ],
)
def test_noise_of_another_kind_is_refused(toy_model: ModelSpec, noise: Any, got: str) -> None:
    with pytest.raises(UsageError, match="noise") as caught:
        check_noise(noise, resolved(toy_model, seed=(1, 2), size=(160, 96)))
    assert caught.value.got == got
    assert "[2, 4, 12, 20]" in caught.value.expected


def test_the_number_of_seeds_must_be_that_of_the_noise(toy_model: ModelSpec) -> None:
    assert len(resolve(Request(prompt=""), toy_model, PROFILE, images=3).seeds) == 3
    with pytest.raises(UsageError, match="number of seeds"):
        resolve(Request(prompt="", seed=(1, 2)), toy_model, PROFILE, images=3)
