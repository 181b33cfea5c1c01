"""A step engine of a network of one line in numpy, requests for it, and the same pictures without any loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.device import Buffer, Stream
from sdxl_trt.runtime.noise import TorchGenerator
from sdxl_trt.runtime.slots import Conditioning, SlotRequest
from sdxl_trt.runtime.table import Noise, Table
from sdxl_trt.spec import COLUMN_WIDTH, HISTORY, Column, ModelSpec, graph_spec

HEIGHT, WIDTH, TOKENS = 3, 5, 7
LATENT = (4, HEIGHT, WIDTH)
Array = NDArray[np.float32]


def network(sample: Array, timestep: Array, text: Array, pooled: Array, time_ids: Array) -> Array:
    """A stand-in for the UNet, on one row."""
    return np.tanh(sample + timestep / 1000 + text.mean() + pooled.mean() + time_ids.mean() / 1000)


def advance(z: Array, column: Array, output: Array, noise: Array) -> tuple[Array, Array]:
    """New state and x̂₀ of one slot."""
    transition = column[Column.transition].reshape(HISTORY, HISTORY)
    sample = np.einsum("k,kchw->chw", column[Column.input], z)
    new = np.einsum("jk,kchw->jchw", transition, z)
    new = new + np.einsum("j,chw->jchw", column[Column.output], output)
    new = new + np.einsum("j,chw->jchw", column[Column.noise], noise)
    return new, column[Column.x0_input] * sample + column[Column.x0_output] * output


class NumpyStep:
    """A step engine, which also remembers what it was asked to run."""

    name = "step"

    def __init__(self, model: ModelSpec) -> None:
        spec = graph_spec("step", model, "float32")
        self.inputs = {tensor.name: tensor for tensor in spec.inputs}
        self.outputs = {tensor.name: tensor for tensor in spec.outputs}
        self.bound: list[int] = []
        self.rows: list[list[int]] = []

    def bind(self, buffers: Mapping[str, Buffer]) -> NumpyBinding:
        assert {name: len(tensor.shape) for name, tensor in {**self.inputs, **self.outputs}.items()} == {
            name: len(buffer.shape) for name, buffer in buffers.items()
        }
        self.bound.append(buffers["row_slot"].shape[0])
        return NumpyBinding(self, {name: buffer.array for name, buffer in buffers.items()})  # type: ignore[attr-defined]


class NumpyBinding:
    capturable = True

    def __init__(self, engine: NumpyStep, tensors: dict[str, NDArray[Any]]) -> None:
        self.engine, self.t = engine, tensors

    def enqueue(self, stream: Stream) -> None:
        t = self.t
        self.engine.rows.append(t["row_slot"].tolist())
        outputs = []
        for row, slot in enumerate(t["row_slot"]):
            column = t["column"][slot]
            sample = np.einsum("k,kchw->chw", column[Column.input], t["state"][slot])
            conditions = (t[name][row] for name in ("text", "pooled", "time_ids"))
            outputs.append(network(sample, column[Column.timestep], *conditions))
        for slot, column in enumerate(t["column"]):
            conditional, unconditional = outputs[t["cond_row"][slot]], outputs[t["uncond_row"][slot]]
            output = unconditional + column[Column.guidance] * (conditional - unconditional)
            new, x0 = advance(t["state"][slot], column, output, t["noise"][slot])
            t["new_state"][slot], t["x0"][slot] = new, x0


def make_table(steps: int, seed: int, *, noisy: bool = False) -> Table:
    """Random coefficients, all entries of the state in use."""
    rng = np.random.default_rng(seed)
    columns = rng.uniform(-0.3, 0.3, (steps, COLUMN_WIDTH)).astype(np.float32)
    columns[:, Column.timestep] = np.linspace(999, 1, steps)[:, None]
    noises: tuple[Noise, ...] = tuple("fresh" if noisy and i % 2 == 0 else None for i in range(steps))
    columns[:, Column.noise] *= np.array([noise is not None for noise in noises], np.float32)[:, None]
    return Table(columns=columns, noises=noises, initial_scale=1.5, steps=steps)


def make_conditioning(seed: int) -> Conditioning:
    rng = np.random.default_rng(seed)
    return Conditioning(
        text=rng.standard_normal((TOKENS, 12), np.float32),
        pooled=rng.standard_normal(5, np.float32),
        time_ids=rng.uniform(0, 100, 6).astype(np.float32),
    )


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
