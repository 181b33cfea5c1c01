"""Samplers on Gaussian data, whose score is known: a linear problem, so that mean and variance are exact numbers.

With x₀ ~ N(m, s²) in every element, x̂₀ is an affine function of the sample. A deterministic sampler then maps the
starting sample affinely, and the exact probability flow takes it to m + s · n. A stochastic one is judged by the
variance of its result. Both errors must fall with steps as the order says; measured between step counts, float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from columns import apply, model_input

from sdxl_trt.runtime.samplers import SamplerOptions, make_table
from sdxl_trt.runtime.table import Brownian, Table
from sdxl_trt.spec import HISTORY, Column

DEVIATION = 0.5
ORDERS = {
    "euler": 1, "heun": 2, "dpm2": 2, "lms": 3, "dpmpp_2m": 2, "dpmpp_2s": 2, "unipc": 3, "deis": 2,
    "ddim": 1, "pndm": 2, "euler_a": 1, "dpm2_a": 2, "dpmpp_2s_a": 2, "dpmpp_sde": 2,
    "dpmpp_2m_sde": 2, "dpmpp_3m_sde": 1, "ddpm": 1,
}  # fmt: skip
"""Of the result, or of its variance. UniPC's corrector adds one; LMS begins at lower orders than its 4."""


def spread(table: Table) -> float:
    """Standard deviation of the result, over all that is drawn; the sample is followed as the vector of its factors."""
    draws = np.eye(1 + len(table.noises))
    state = np.zeros((HISTORY, len(draws)))
    state[0] = table.initial_scale * draws[0]
    half: tuple[float, float, Any] = (0.0, 0.0, draws[0])
    for column, noise, drawn in zip(table.columns.astype(np.float64), table.noises, draws[1:], strict=True):
        output = denoised_output(column, model_input(column, state))
        fresh = np.zeros(len(draws)) if noise is None else drawn
        if isinstance(noise, Brownian):
            begin, middle, first = half
            if begin == noise.sigma:  # the whole step, of whose path the first half is drawn already
                share = (begin - middle) / (begin - noise.sigma_next)
                fresh = math.sqrt(share) * first + math.sqrt(1 - share) * drawn
            half = (*noise, drawn)
        state, _ = apply(column, state, output, fresh)
    return float(np.linalg.norm(state[0]))


def denoised_output(column: Any, sample: Any) -> Any:
    """What a network trained on that data to predict the noise gives: E[n | α x₀ + σ n]."""
    ratio = -float(column[Column.x0_output][0])  # σ/α of an ε model
    alpha = 1 / math.hypot(1, ratio)
    sigma = ratio * alpha
    return sigma / (alpha**2 * DEVIATION**2 + sigma**2) * sample


@pytest.mark.parametrize("name", ORDERS)
def test_errors_fall_as_the_order_says(name: str) -> None:
    errors = []
    counts = (40, 80, 160)
    for steps in counts:
        table = spaced_table(name, steps)
        errors.append(abs(spread(table) / exact(table) - 1))
    measured = math.log2(errors[0] / errors[-1]) / math.log2(counts[-1] / counts[0])
    print(f"{name}: errors {[f'{error:.1e}' for error in errors]}, order {measured:.2f}, stated {ORDERS[name]}")
    assert measured >= ORDERS[name] - 0.3


def spaced_table(name: str, steps: int) -> Table:
    """A table of levels that get closer with steps, on a fine training schedule, up to 0.2 before the last."""
    config = {"num_train_timesteps": 20_000, "beta_start": 4.25e-5, "beta_end": 6e-4, "beta_schedule": "scaled_linear"}
    config |= {"skip_prk_steps": True, "lower_order_final": False, "final_sigmas_type": "sigma_min"}
    options = SamplerOptions() if name in {"dpmpp_2s"} else SamplerOptions(spacing="trailing")
    return make_table(config, steps, name, options=options, denoising_end=0.8)


def exact(table: Table) -> float:
    """Standard deviation of the data under the noise of the table's end."""
    start = math.hypot(table.begins.image * DEVIATION, table.begins.noise)
    flow = math.hypot(table.ends.image * DEVIATION, table.ends.noise)
    deterministic = not any(table.noises)
    return flow * (table.initial_scale / start if deterministic else 1.0)
