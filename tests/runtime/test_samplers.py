"""Tables against diffusers' schedulers step by step, and the tape against the same recurrences run on numbers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from columns import apply, model_input
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sdxl_trt.errors import SchedulerError, UnknownName
from sdxl_trt.runtime.levels import Level
from sdxl_trt.runtime.samplers import SAMPLERS, find_sampler, make_table, variants
from sdxl_trt.runtime.table import Form, Table, Tape
from sdxl_trt.spec import COLUMN_WIDTH, HISTORY, Column

Latent = NDArray[np.float32]

SDXL = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
SHAPE = (4, 8, 8)
RELATIVE = 1e-5


def distance(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Largest difference, relative to the largest element."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def distance_from_diffusers(config: dict[str, Any], steps: int, table: Table) -> dict[str, float]:
    """Run a table beside EulerDiscreteScheduler, both on the same random outputs; the worst distance of each result."""
    import torch
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    rng = np.random.default_rng(7)
    state = np.zeros((HISTORY, *SHAPE), np.float32)
    start = rng.standard_normal(SHAPE, np.float32)
    state[0] = np.float32(table.initial_scale) * start
    latents = torch.from_numpy(start) * scheduler.init_noise_sigma
    worst = {"start": distance(state[0], latents.numpy()), "input": 0.0, "sample": 0.0, "x0": 0.0}
    assert len(scheduler.timesteps) == table.evaluations
    for column, timestep in zip(table.columns, scheduler.timesteps, strict=True):
        assert column[Column.timestep] == timestep.item()
        scaled = scheduler.scale_model_input(latents, timestep).numpy()
        worst["input"] = max(worst["input"], distance(model_input(column, state), scaled))
        output = rng.standard_normal(SHAPE, np.float32)
        stepped = scheduler.step(torch.from_numpy(output), timestep, latents)
        state, x0 = apply(column, state, output, np.zeros(SHAPE, np.float32))
        latents = stepped.prev_sample
        worst["sample"] = max(worst["sample"], distance(state[0], latents.numpy()))
        worst["x0"] = max(worst["x0"], distance(x0, stepped.pred_original_sample.numpy()))
    return worst


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 30])
def test_euler_is_diffusers(steps: int, spacing: str, prediction: str) -> None:
    config = {**SDXL, "timestep_spacing": spacing, "prediction_type": prediction}
    table = make_table(config, steps)
    assert table.steps == table.evaluations == steps
    assert table.columns.shape == (steps, COLUMN_WIDTH)
    assert table.columns.dtype == np.float32
    worst = distance_from_diffusers(config, steps, table)
    print(f"measured {worst}, required {RELATIVE:.0e}")
    assert max(worst.values()) <= RELATIVE


@pytest.mark.parametrize(
    "options",
    [
        {"final_sigmas_type": "sigma_min"},
        {"interpolation_type": "log_linear", "timestep_spacing": "leading"},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    ],
    ids=["sigma_min", "log_linear", "zero terminal SNR"],
)
def test_euler_is_diffusers_with_other_options(options: dict[str, Any]) -> None:
    config = {**SDXL, **options}
    worst = distance_from_diffusers(config, 30, make_table(config, 30))
    print(f"measured {worst}, required {RELATIVE:.0e}")
    assert max(worst.values()) <= RELATIVE


@pytest.mark.parametrize(
    ("field", "result"),
    [
        (Column.input, "input"),
        (Column.transition, "sample"),
        (Column.output, "sample"),
        (Column.x0_input, "x0"),
        (Column.x0_output, "x0"),
    ],
    ids=["input", "transition", "output", "x0_input", "x0_output"],
)
def test_the_comparison_sees_one_coefficient_off_by_a_hundredth(field: slice, result: str) -> None:
    table = make_table(SDXL, 30)
    columns = table.columns.copy()
    columns[15, field.start] *= 1.01
    spoilt = Table(columns=columns, noises=table.noises, initial_scale=table.initial_scale, steps=table.steps)
    worst = distance_from_diffusers(SDXL, 30, spoilt)
    print(f"measured {worst}, must exceed {RELATIVE:.0e} in {result}")
    assert worst[result] > RELATIVE


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_inpainting_blends_as_the_pipeline_does(final: str) -> None:
    """diffusers' inpainting adds noise to the image at the next timestep, and none after the last."""
    import torch
    from diffusers import EulerDiscreteScheduler

    config = {**SDXL, "final_sigmas_type": final}
    scheduler = EulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(30)
    table = make_table(config, 30)
    rng = np.random.default_rng(7)
    image, noise = rng.standard_normal((2, 1, *SHAPE), np.float32)
    worst = 0.0
    for column, upcoming in zip(table.columns[:-1], scheduler.timesteps[1:], strict=True):
        theirs = scheduler.add_noise(torch.from_numpy(image), torch.from_numpy(noise), upcoming[None]).numpy()
        worst = max(worst, distance(column[Column.blend_image] * image + column[Column.blend_noise] * noise, theirs))
    print(f"measured {worst:.1e}, required {RELATIVE:.0e}")
    assert worst <= RELATIVE
    assert table.columns[-1, Column.blend_image] == 1
    assert table.columns[-1, Column.blend_noise] == 0


def test_a_column_leaves_alone_what_the_sampler_does_not_use() -> None:
    table = make_table({**SDXL, "prediction_type": "v_prediction"}, 5)
    assert table.noises == (None,) * 5
    used = np.zeros(COLUMN_WIDTH, bool)
    for field in (Column.timestep, Column.blend_image, Column.blend_noise, Column.x0_input, Column.x0_output):
        used[field] = True
    for field in (Column.input, Column.transition, Column.output):
        used[field.start] = True
    assert (table.columns[:, ~used] == 0).all()
    with pytest.raises(ValueError, match="read-only"):
        table.columns[0, 0] = 1


# The tape: recurrences with several evaluations per step, with history and with fresh noise, and their numbers.

SIGMAS = [14.6, 5.0, 1.2, 0.1]


def level(sigma: float) -> Level:
    return Level.make("v_prediction", timestep=100 * sigma, image=1.0, noise=sigma)


def heun(tape: Any) -> Any:
    """arXiv 2206.00364, algorithm 1: two evaluations per step."""
    x = tape.start
    for s, s_next in pairwise(SIGMAS):
        x, x0 = tape.evaluate(x, at=level(s))
        d = (x - x0) / s
        x2, x, d, x0 = tape.evaluate(x + (s_next - s) * d, x, d, at=level(s_next))
        x = x + (s_next - s) * (d + (x2 - x0) / s_next) / 2
    return x


def adams_bashforth(tape: Any) -> Any:
    """Six latents in the state, though with weights of no meaning."""
    history: list[Any] = []
    x = tape.start
    for s, s_next in pairwise(SIGMAS * 3):
        x, *history, x0 = tape.evaluate(x, *history, at=level(s))
        history = [(x - x0) / s, *history][: HISTORY - 1]
        for d, weight in zip(history, (1.5, -0.9, 0.6, -0.3, 0.1), strict=False):
            x = x + (s_next - s) * weight * d
    return x


def ancestral(tape: Any) -> Any:
    x = tape.start
    for s, s_next in pairwise(SIGMAS):
        x, x0 = tape.evaluate(x, at=level(s))
        x = x0 + 0.6 * s_next / s * (x - x0) + 0.8 * s_next * tape.noise()
    return x


class Numbers:
    """A tape's interface on latents, float64: what the recurrence means."""

    def __init__(self, network: Callable[[NDArray[Any], float], NDArray[Any]], start: Latent) -> None:
        self.network, self.start = network, start.astype(np.float64)
        self.noises: list[NDArray[np.float64]] = []
        self._rng = np.random.default_rng(3)

    def evaluate(self, x: NDArray[Any], *kept: NDArray[Any], at: Level) -> tuple[NDArray[Any], ...]:
        scaled = at.scale * x
        return (x, *kept, at.x0_input * scaled + at.x0_output * self.network(scaled, at.timestep))

    def noise(self) -> NDArray[Any]:
        fresh = self._rng.standard_normal(SHAPE)
        self.noises.append(fresh)
        return fresh


@pytest.mark.parametrize(
    ("recurrence", "evaluations", "noises"),
    [(heun, 6, 0), (adams_bashforth, 11, 0), (ancestral, 3, 3)],
    ids=["heun", "six latents", "ancestral"],
)
def test_a_table_does_what_its_recurrence_says(recurrence: Any, evaluations: int, noises: int) -> None:
    def network(scaled: NDArray[Any], timestep: float) -> NDArray[Any]:
        output: NDArray[Any] = np.tanh(scaled[::-1]) * np.cos(timestep)
        return output

    start = np.random.default_rng(7).standard_normal(SHAPE).astype(np.float32)
    direct = Numbers(network, start)
    expected = recurrence(direct)
    tape = Tape()
    table = tape.table(recurrence(tape), initial_scale=1.0, steps=3)
    assert (table.steps, table.evaluations, table.noises.count("fresh")) == (3, evaluations, noises)
    state = np.full((HISTORY, *SHAPE), np.float32(0))
    state[0] = start
    fresh = iter(direct.noises)
    for column, takes_noise in zip(table.columns, table.noises, strict=True):
        output = network(model_input(column, state), float(column[Column.timestep][0]))
        noise = next(fresh) if takes_noise else np.full(SHAPE, 1e9)
        state, _ = apply(column, state, output.astype(np.float32), noise.astype(np.float32))
    measured = distance(state[0], expected)
    print(f"measured {measured:.1e}, required {RELATIVE:.0e}")
    assert measured <= RELATIVE


def test_inpainting_blends_at_the_level_of_the_next_evaluation() -> None:
    tape = Tape()
    blend = tape.table(heun(tape), initial_scale=1.0, steps=3).columns[:, Column.blend_noise].ravel()
    np.testing.assert_allclose(blend, [5.0, 5.0, 1.2, 1.2, 0.1, 0.0], rtol=1e-6)


def test_misuse_of_a_tape_is_an_error() -> None:
    tape = Tape()
    with pytest.raises(ValueError, match="first evaluation"):
        tape.evaluate(tape.start * 2.0, at=level(1.0))
    with pytest.raises(ValueError, match="none before the first"):
        tape.noise()
    x, x0 = tape.evaluate(tape.start, at=level(1.0))
    tape.noise()
    with pytest.raises(ValueError, match="one noise"):
        tape.noise()
    with pytest.raises(ValueError, match="7 latents"):
        tape.evaluate(x, *[x0] * HISTORY, at=level(1.0))
    (x_after, _) = tape.evaluate(x, at=level(1.0))
    with pytest.raises(ValueError, match="evaluations 2 and 1"):
        x_after + x0
    with pytest.raises(ValueError, match="from before evaluation 2"):
        tape.evaluate(x_after, x0, at=level(1.0))


@pytest.mark.parametrize(("image", "noise"), [(1.0, 14.6), (1.0, 0.03), (0.6, 0.8), (0.07, 0.9975)])
def test_a_perfect_network_denoises_perfectly(image: float, noise: float) -> None:
    clean, fresh = np.random.default_rng(7).standard_normal((2, 16))
    alpha, sigma = np.array([image, noise]) / np.hypot(image, noise)
    outputs = {"epsilon": fresh, "v_prediction": alpha * fresh - sigma * clean, "sample": clean}
    for prediction, output in outputs.items():
        at = Level.make(prediction, timestep=1.0, image=image, noise=noise)  # type: ignore[arg-type]
        scaled = at.scale * (image * clean + noise * fresh)
        np.testing.assert_allclose(scaled, alpha * clean + sigma * fresh, atol=1e-12)
        np.testing.assert_allclose(at.x0_input * scaled + at.x0_output * output, clean, atol=1e-12)


finite = st.floats(-100, 100)


@given(a=finite, b=finite.map(np.float64), c=st.floats(0.1, 100), seed=st.integers(0, 2**32 - 1))
def test_forms_are_arithmetic(a: float, b: float, c: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((HISTORY + 2, 5))
    forms = [Form(rng.standard_normal(HISTORY + 2), 1) for _ in range(3)]
    p, q, r = (form.coefficients @ basis for form in forms)
    x, y, z = forms
    combined = a * x - y * b + (b * z - x) / c
    assert isinstance(combined, Form)
    np.testing.assert_allclose(combined.coefficients @ basis, a * p - q * b + (b * r - p) / c, rtol=1e-9, atol=1e-9)


def test_samplers_are_found_by_name_title_alias_and_class() -> None:
    for sampler in SAMPLERS.values():
        for name in (sampler.name, sampler.title, *sampler.aliases, sampler.name.upper()):
            assert find_sampler(name) is sampler
        for variant in variants(sampler).values():
            assert find_sampler(variant.title.lower().replace(" ", "_")).title == variant.title
        assert not sampler.scheduler.name or find_sampler(sampler.scheduler.name).scheduler is sampler.scheduler
    table = make_table({**SDXL, "_class_name": "PNDMScheduler"}, 4, "Euler")
    np.testing.assert_array_equal(table.columns, make_table(SDXL, 4).columns)


@pytest.mark.parametrize(
    ("name", "scheduler", "options"),
    [
        ("DPM++ 2M Karras", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
        (
            "dpmpp_2m_sde_karras",
            "DPMSolverMultistepScheduler",
            {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
        ),
        ("dpm++ 3m sde", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}),
        ("DPM2 a Karras", "KDPM2AncestralDiscreteScheduler", {"use_karras_sigmas": True}),
        ("Euler a", "EulerAncestralDiscreteScheduler", {}),
        ("Euler SGM Uniform", "EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
        ("LMS Karras", "LMSDiscreteScheduler", {"use_karras_sigmas": True}),
        ("DPM++ 2S", "DPMSolverSinglestepScheduler", {}),
        ("PLMS", "PNDMScheduler", {"skip_prk_steps": True}),
    ],
)
def test_a_name_of_the_field_is_its_class_with_options(name: str, scheduler: str, options: dict[str, Any]) -> None:
    """Whatever the config says of the options that make the name."""
    plain = {**SDXL, "_class_name": "UniPCMultistepScheduler"}
    contrary = {**plain, "algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": False}
    wanted = make_table({**plain, **options}, 7, scheduler)
    np.testing.assert_array_equal(make_table(contrary, 7, name).columns, wanted.columns)


def test_a_class_leaves_its_options_to_the_config() -> None:
    config = {
        **SDXL,
        "_class_name": "DPMSolverMultistepScheduler",
        "algorithm_type": "sde-dpmsolver++",
        "solver_order": 3,
    }
    for table in (make_table(config, 7), make_table(config, 7, "DPMSolverMultistepScheduler")):
        np.testing.assert_array_equal(table.columns, make_table(SDXL, 7, "dpmpp_3m_sde").columns)
        assert table.noises == ("fresh",) * 7
    assert make_table(config, 7, "dpmpp_2m").noises == (None,) * 7


def test_an_unknown_sampler_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="did you mean euler") as caught:
        make_table(SDXL, 4, "Eulr")
    assert "euler" in caught.value.expected


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "", None, 3])
def test_a_scheduler_without_a_sampler_is_refused_by_name(name: Any) -> None:
    with pytest.raises(SchedulerError) as caught:
        make_table({**SDXL, "_class_name": name}, 4)
    assert repr(name) in caught.value.got
    assert "EulerDiscreteScheduler" in caught.value.expected
    assert "--sampler euler" in caught.value.fix
