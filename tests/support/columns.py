"""Columns of a table applied in numpy, from the definition in sdxl_trt/spec/column.py alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.levels import Mix
from sdxl_trt.runtime.table import Brownian, Table
from sdxl_trt.spec import HISTORY, Column

Latent = NDArray[Any]
Network = Callable[[Latent, float], Latent]
"""A model: the scaled sample and the timestep give its output."""


def model_input(column: Latent, state: Latent) -> Latent:
    """`sample` of one evaluation; state [K, …]."""
    return np.tensordot(column[Column.input], state, 1)


def apply(column: Latent, state: Latent, output: Latent, noise: Latent) -> tuple[Latent, Latent]:
    """The new state and x̂₀ of one evaluation."""
    moved = np.tensordot(column[Column.transition].reshape(HISTORY, HISTORY), state, 1)
    moved += np.multiply.outer(column[Column.output], output) + np.multiply.outer(column[Column.noise], noise)
    return moved, column[Column.x0_input] * model_input(column, state) + column[Column.x0_output] * output


def run_table(
    table: Table,
    network: Network,
    start: Latent,
    draw: Callable[[], Latent],
    brownian: Callable[[float, float], Latent] | None = None,
) -> Latent:
    """A whole run in the columns' precision: the result, which has the shape of `start`, the starting sample."""
    state = np.zeros((HISTORY, *start.shape), table.columns.dtype)
    state[0] = start
    for column, noise in zip(table.columns, table.noises, strict=True):
        output = network(model_input(column, state), float(column[Column.timestep][0]))
        if isinstance(noise, Brownian):
            assert brownian is not None
            fresh = brownian(*noise)
        else:
            fresh = np.zeros_like(start) if noise is None else draw()
        state, _ = apply(column, state, output, fresh)
    return state[0]


def levels(table: Table) -> list[Mix]:
    """Noise levels of a table's samples: of each evaluation's, by how the network denoises there; and of the result."""
    scale = table.columns[0, Column.input.start]
    if not math.isclose(scale * math.hypot(*table.begins), 1, rel_tol=1e-5):  # EDM, where x̂₀ depends on the data too
        between = [Mix(*column[[Column.blend_image.start, Column.blend_noise.start]]) for column in table.columns[:-1]]
        return [table.begins, *between, table.ends]
    return [*map(_level, table.columns.astype(np.float64)), table.ends]


def _level(column: Latent) -> Mix:
    """Of a network that predicts ε, x̂₀ = (u − σ ε)/α, or v, x̂₀ = α u − σ v; u is the sample, scaled."""
    (scale,), (by_input,), (by_output,) = (
        column[field][:1] for field in (Column.input, Column.x0_input, Column.x0_output)
    )
    alpha, sigma = (1 / by_input, -by_output / by_input) if by_input >= 1 else (by_input, -by_output)
    return Mix(alpha / scale, sigma / scale)


def drawn_noise(table: Table) -> Iterator[Latent]:
    """The fresh noise of each evaluation, as its factors of independent draws [1 + evaluations], the first the start's.

    The second increment of a Brownian path that a step asks for spans the whole step, of which the first is a part.
    """
    draws = np.eye(1 + table.evaluations)
    half: tuple[float, float, Latent] = (0.0, 0.0, draws[0])
    for noise, drawn in zip(table.noises, draws[1:], strict=True):
        fresh = np.zeros(len(draws)) if noise is None else drawn
        if isinstance(noise, Brownian):
            begin, middle, first = half
            if begin == noise.sigma:
                share = (begin - middle) / (begin - noise.sigma_next)
                fresh = math.sqrt(share) * first + math.sqrt(1 - share) * drawn
            half = (*noise, drawn)
        yield fresh
