"""Samplers on Gaussian data, whose score is known: a linear problem, so that mean and variance are exact numbers.

With x₀ ~ N(m, s²) in every element, x̂₀ is an affine function of the sample. A deterministic sampler then maps the
starting sample affinely, and the exact probability flow takes it to m + s · n. A stochastic one is judged by the
variance of its result. Both errors must fall with steps as the order says; measured between step counts, float64.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from columns import apply, drawn_noise, levels, model_input

from sdxl_trt.runtime.samplers import SAMPLERS, SamplerOptions, find_sampler, make_table, variants
from sdxl_trt.runtime.table import Table
from sdxl_trt.spec import HISTORY, Column

DEVIATION = 0.5
ORDERS = {
    "euler": 1, "heun": 2, "dpm2": 2, "lms": 3, "dpmpp_2m": 2, "dpmpp_2s": 2, "unipc": 3, "deis": 2,
    "ddim": 1, "pndm": 2, "euler_a": 1, "dpm2_a": 2, "dpmpp_2s_a": 2, "dpmpp_sde": 2,
    "dpmpp_2m_sde": 2, "dpmpp_3m_sde": 1, "ddpm": 1, "tcd": 1, "edm_euler": 1, "edm_dpmpp_2m": 2,
}  # fmt: skip
"""Of the result, or of its variance. UniPC's corrector adds one; LMS begins at lower orders than its 4; TCD without
fresh noise is DDIM. LCM alone has none: it draws the picture anew from each x̂₀, right only where that is a sample."""
SPACED = [
    variant.title
    for name in ORDERS
    for ending, variant in variants(SAMPLERS[name]).items()
    if ending in {"Karras", "Exponential"}
]


def spread(table: Table) -> float:
    """Standard deviation of the result, over all that is drawn; the sample is followed as the vector of its factors."""
    state = np.zeros((HISTORY, 1 + table.evaluations))
    state[0, 0] = table.initial_scale
    for column, level, fresh in zip(
        table.columns.astype(np.float64), levels(table)[:-1], drawn_noise(table), strict=True
    ):
        x0 = level.image * DEVIATION**2 / (level.image**2 * DEVIATION**2 + level.noise**2) * state[0]
        output = (x0 - column[Column.x0_input] * model_input(column, state)) / column[Column.x0_output]
        state, _ = apply(column, state, output, fresh)
    return float(np.linalg.norm(state[0]))


def test_every_sampler_but_lcm_has_an_order() -> None:
    assert SAMPLERS.keys() - ORDERS.keys() == {"lcm"}


@pytest.mark.parametrize("name", [*ORDERS, *SPACED])
def test_errors_fall_as_the_order_says(name: str) -> None:
    counts = (40, 160) if name in SPACED else (40, 80, 160)
    tables = [spaced_table(name, steps) for steps in counts]
    errors = [abs(spread(table) / exact(table) - 1) for table in tables]
    measured = math.log(errors[0] / errors[-1], counts[-1] / counts[0])
    stated = ORDERS[find_sampler(name).name]
    print(f"{name}: errors {[f'{error:.1e}' for error in errors]}, order {measured:.2f}, stated {stated}")
    assert measured >= stated - 0.3


def spaced_table(name: str, steps: int) -> Table:
    """A table of levels that get closer with steps, on a fine training schedule, up to 0.2 before the last."""
    if name.startswith("edm"):
        return make_table({}, steps, name)
    config = {"num_train_timesteps": 20_000, "beta_start": 4.25e-5, "beta_end": 6e-4, "beta_schedule": "scaled_linear"}
    config |= {"skip_prk_steps": True, "lower_order_final": False, "final_sigmas_type": "sigma_min"}
    config |= {"original_inference_steps": 20_000}
    trailing = name in ORDERS and name not in {"dpmpp_2s", "tcd"}
    options = SamplerOptions(spacing="trailing") if trailing else SamplerOptions()
    parts = [make_table(config, steps, name, options=options, denoising_end=end) for end in (0.8, 0.81, 0.82)]
    return next((table for table in parts if table.evaluations % 2 == 0), parts[0])  # where it can be, whole steps


def exact(table: Table) -> float:
    """Standard deviation of the data under the noise of the table's end."""
    start = math.hypot(table.begins.image * DEVIATION, table.begins.noise)
    flow = math.hypot(table.ends.image * DEVIATION, table.ends.noise)
    deterministic = not any(table.noises)
    return flow * (table.initial_scale / start if deterministic else 1.0)
