"""Pictures of a few numbers for the step in numpy, and the same pictures without any loop."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from numpy_step import advance, make_conditioning, network

from sdxl_trt.runtime.noise import TorchGenerator
from sdxl_trt.runtime.slots import SlotRequest
from sdxl_trt.runtime.table import Noise, Table
from sdxl_trt.spec import COLUMN_WIDTH, HISTORY, Column

HEIGHT, WIDTH = 3, 5
LATENT = (4, HEIGHT, WIDTH)
Array = NDArray[np.float32]


def make_table(steps: int, seed: int, *, noisy: bool = False) -> Table:
    """Random coefficients, all entries of the state in use."""
    rng = np.random.default_rng(seed)
    columns = rng.uniform(-0.3, 0.3, (steps, COLUMN_WIDTH)).astype(np.float32)
    columns[:, Column.timestep] = np.linspace(999, 1, steps)[:, None]
    noises: tuple[Noise, ...] = tuple("fresh" if noisy and i % 2 == 0 else None for i in range(steps))
    columns[:, Column.noise] *= np.array([noise is not None for noise in noises], np.float32)[:, None]
    return Table(columns=columns, noises=noises, initial_scale=1.5, steps=steps)


def make_request(seed: int, steps: int, *, guided: bool = True, noisy: bool = False) -> SlotRequest:
    source = TorchGenerator(seed)
    return SlotRequest(
        table=make_table(steps, seed, noisy=noisy),
        noise=source.normal(LATENT),
        source=source,
        prompt=make_conditioning(10 + seed),
        negative=make_conditioning(20 + seed) if guided else None,
        guidance=1.0 + seed if guided else 1.0,
    )


def straight(request: SlotRequest, draws: TorchGenerator) -> tuple[Array, Array]:
    """The same picture without any loop, slots or rows: latents and the last x̂₀."""
    z = np.zeros((HISTORY, *LATENT), np.float32)
    z[0] = request.noise * np.float32(request.table.initial_scale)
    draws.normal(LATENT)  # the starting noise
    x0 = z[0]
    for column, consumes in zip(request.table.columns, request.table.noises, strict=True):
        sample = np.einsum("k,kchw->chw", column[Column.input], z)
        rows = [
            network(sample, column[Column.timestep], c.text, c.pooled, c.time_ids)
            for c in (request.negative, request.prompt)
            if c
        ]
        output = rows[0] + np.float32(request.guidance) * (rows[-1] - rows[0])
        noise = draws.normal(LATENT) if consumes else np.zeros(LATENT, np.float32)
        z, x0 = advance(z, column, output, noise)
    return z[0], x0
