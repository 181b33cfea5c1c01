"""Parts of a run: what a table says of its start and its end, and what is refused. Results: test_sampler_parity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sdxl_trt.errors import SchedulerError, UsageError
from sdxl_trt.runtime.samplers import SAMPLERS, SamplerOptions, choose_preset, find_sampler, make_table
from sdxl_trt.spec import Column

SDXL = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "noise_sampler_seed": 3,
}
EVERY = [name for name in SAMPLERS if not name.startswith("edm")]


def test_a_whole_run_starts_with_noise_and_ends_clean() -> None:
    table = make_table(SDXL, 20)
    assert (table.initial_image, table.ends) == (0.0, (1.0, 0.0))
    assert table.initial_scale == pytest.approx(math.hypot(table.begins.noise, 1))


@pytest.mark.parametrize("name", EVERY)
def test_a_run_from_an_image_starts_at_the_level_of_its_first_evaluation(name: str) -> None:
    whole, part = make_table(SDXL, 20, name), make_table(SDXL, 20, name, strength=0.25)
    assert (part.initial_image, part.initial_scale) == part.begins
    assert part.steps == (6 if name == "pndm" else 5)  # whose first step is two
    assert part.ends == (1.0, 0.0)
    timesteps = whole.columns[-part.evaluations :, Column.timestep]
    np.testing.assert_array_equal(part.columns[:, Column.timestep], timesteps)


@pytest.mark.parametrize("name", EVERY)
def test_a_base_hands_over_where_the_refiner_begins(name: str) -> None:
    """Together they are as many evaluations as one run, but for a step that is cut in its middle, and done again."""
    base, refiner = make_table(SDXL, 20, name, denoising_end=0.8), make_table(SDXL, 20, name, denoising_start=0.8)
    assert (refiner.initial_image, refiner.initial_scale) == (1.0, 0.0)
    end, begin = base.ends.noise / base.ends.image, refiner.begins.noise / refiner.begins.image
    assert end == pytest.approx(begin) if SAMPLERS[name].order == 1 else 0 < end <= begin * (1 + 1e-6)
    whole = make_table(SDXL, 20, name).evaluations
    assert base.evaluations + refiner.evaluations in {whole, whole + SAMPLERS[name].order - 1}
    assert tuple(base.columns[-1, [57, 58]]) == (1, 0)  # inpainting's last blend is with the image as it is


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"strength": 0.04}, "strength leaves no step"),
        ({"strength": 0}, "strength leaves no step"),
        ({"strength": 1.01}, "strength cannot be used"),
        ({"strength": True}, "strength cannot be used"),
        ({"strength": math.nan}, "strength cannot be used"),
        ({"denoising_start": -0.1}, "denoising_start cannot be used"),
        ({"denoising_start": "0.8"}, "denoising_start cannot be used"),
        ({"denoising_start": 1}, "denoising_start leaves no step"),
        ({"denoising_end": 1.5}, "denoising_end cannot be used"),
        ({"denoising_end": 0}, "denoising_end leaves no step"),
        ({"denoising_end": 0.01}, "denoising_end leaves no step"),
        ({"denoising_start": 0.8, "denoising_end": 0.8}, "leaves nothing to do"),
        ({"strength": 0.1, "denoising_end": 0.5}, "denoising_end leaves no step"),
    ],
)
def test_parts_that_leave_no_step_are_refused(part: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_table(SDXL, 20, "heun", **part)
    assert why in caught.value.what
    assert caught.value.got
    assert caught.value.expected
    assert caught.value.fix


@pytest.mark.parametrize("part", [{"strength": 1.0}, {"denoising_start": 0.0}, {"denoising_end": 1.0}])
def test_the_ends_of_the_range_are_whole_runs(part: dict[str, float]) -> None:
    table = make_table(SDXL, 20, **part)  # type: ignore[arg-type]
    np.testing.assert_array_equal(table.columns, make_table(SDXL, 20).columns)


OVER_CONFIG = [
    ("euler", SamplerOptions(spacing="trailing"), {"timestep_spacing": "trailing"}),
    ("euler", SamplerOptions(sigmas="beta"), {"use_beta_sigmas": True}),
    ("DPM++ 2M Karras", SamplerOptions(sigmas="exponential"), {"use_exponential_sigmas": True}),
    ("DPM++ 2M Karras", SamplerOptions(sigmas="trained"), {}),
    ("unipc", SamplerOptions(solver="bh1", solver_order=3), {"solver_type": "bh1", "solver_order": 3}),
    ("euler", SamplerOptions(prediction="v_prediction", zero_snr=True),
     {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
    ("dpmpp_2m", SamplerOptions(final_sigmas="sigma_min", lower_order_final=False),
     {"final_sigmas_type": "sigma_min", "lower_order_final": False}),
    ("dpmpp_2m", SamplerOptions(algorithm="sde-dpmsolver++"), {"algorithm_type": "sde-dpmsolver++"}),
    ("ddim", SamplerOptions(steps_offset=7), {"steps_offset": 7}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "config"), OVER_CONFIG)
def test_options_come_before_the_config(name: str, options: SamplerOptions, config: dict[str, Any]) -> None:
    wanted = make_table({**SDXL, **config}, 9, find_sampler(name).scheduler.name)
    np.testing.assert_array_equal(make_table(SDXL, 9, name, options=options).columns, wanted.columns)


def test_the_seed_of_a_brownian_path_is_an_option() -> None:
    table = make_table(SDXL, 9, "dpmpp_sde", options=SamplerOptions(noise_sampler_seed=5))
    assert table.brownian is not None
    assert table.brownian.seed == 5
    path = make_table({**SDXL, "noise_sampler_seed": None}, 9, "dpmpp_sde").brownian
    assert path is not None
    assert path.seed is None


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("euler", {"eta": 0.5}),
        ("euler_a", {"sigmas": "karras"}),
        ("ddim", {"solver_order": 2}),
        ("dpmpp_2s", {"spacing": "leading"}),
        ("heun", {"noise_sampler_seed": 1}),
    ],
)
def test_an_option_that_a_sampler_does_not_have_is_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="has no option") as caught:
        make_table(SDXL, 9, name, options=SamplerOptions(**options))
    assert "spacing" in caught.value.expected or name == "dpmpp_2s"


@pytest.mark.parametrize(
    "options",
    [
        {"spacing": "karras"},
        {"sigmas": "lu"},
        {"prediction": "flow"},
        {"eta": 1.5},
        {"eta": math.nan},
        {"eta": "0"},
        {"solver_order": 4},
        {"solver_order": True},
        {"zero_snr": 1},
        {"final_sigmas": 0},
        {"algorithm": "deis"},
        {"solver": "ralston"},
        {"steps_offset": -1},
        {"noise_sampler_seed": 1.0},
    ],
)
def test_options_of_no_meaning_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        SamplerOptions(**options)
    assert next(iter(options)) in caught.value.what
    assert caught.value.expected
    assert caught.value.fix


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("DPMSolverMultistepScheduler", {"algorithm": "dpmsolver"}, "σ = 0"),
        ("DPMSolverMultistepScheduler", {"algorithm": "sde-dpmsolver", "solver_order": 3, "final_sigmas": "sigma_min"},
         "third-order"),
        ("unipc", {"lower_order_final": False}, "σ = 0"),
    ],
)  # fmt: skip
def test_combinations_that_divide_by_nothing_are_refused(name: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(SchedulerError, match=why):
        make_table(SDXL, 9, name, options=SamplerOptions(**options))


PRESETS = [
    (
        "sdxl-turbo",
        {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"},
        False,
        "turbo",
        1,
    ),
    ("my-lcm", {"_class_name": "LCMScheduler"}, True, "lcm", 4),
    ("lcm-lora-fused", {"_class_name": "LCMScheduler"}, False, "lcm", 4),
    ("tcd-model", {"_class_name": "TCDScheduler"}, False, "tcd", 4),
    ("SDXL-Lightning 8step", SDXL, False, "lightning", 8),
    ("SDXL-Lightning", SDXL, False, "lightning", 4),
    ("Hyper-SDXL-1step", SDXL, False, "hyper", 1),
    ("Hyper-SDXL-2steps", SDXL, False, "hyper", 2),
]


@pytest.mark.parametrize(("name", "config", "embedding", "kind", "steps"), PRESETS)
def test_distilled_models_have_presets_that_make_tables(
    name: str, config: dict[str, Any], embedding: bool, kind: str, steps: int
) -> None:
    preset = choose_preset(name, config, guidance_embedding=embedding)
    assert preset is not None
    assert (preset.name, preset.steps) == (kind, steps)
    assert preset.guidance == (8 if embedding else 0)
    table = make_table({**SDXL, **config}, preset.steps, preset.sampler, options=preset.options)
    assert table.steps == steps
    assert table.columns[0, Column.timestep] == 999


@pytest.mark.parametrize("name", ["stable-diffusion-xl-base-1.0", "demo"])
def test_ordinary_models_have_no_preset(name: str) -> None:
    assert choose_preset(name, SDXL, guidance_embedding=False) is None
    assert choose_preset(name, {**SDXL, "timestep_spacing": "trailing"}, guidance_embedding=False) is None
