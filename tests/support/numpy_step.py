"""The step graph in numpy, behind the seam of engines: what sdxl_trt/spec/column.py says, around any network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.device import Buffer, Stream
from sdxl_trt.runtime.engine import AlwaysOpen
from sdxl_trt.runtime.slots import Conditioning
from sdxl_trt.spec import HISTORY, Column, ModelSpec, graph_spec

Array = NDArray[np.float32]
Network = Callable[[Array, Array, Array, Array, Array], Array]
"""A UNet on one row: sample, timestep, text, pooled and time ids give its output."""

TOKENS = 7


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


class NumpyStep(AlwaysOpen):
    """A step engine of `toy_model`'s widths, which also remembers what it was asked to run."""

    name = "step"

    def __init__(self, model: ModelSpec, network: Network = network) -> None:
        self.network = network
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
            outputs.append(self.engine.network(sample, column[Column.timestep], *conditions))
        for slot, column in enumerate(t["column"]):
            conditional, unconditional = outputs[t["cond_row"][slot]], outputs[t["uncond_row"][slot]]
            output = unconditional + column[Column.guidance] * (conditional - unconditional)
            new, x0 = advance(t["state"][slot], column, output, t["noise"][slot])
            t["new_state"][slot], t["x0"][slot] = new, x0


def make_conditioning(seed: int) -> Conditioning:
    rng = np.random.default_rng(seed)
    return Conditioning(
        text=rng.standard_normal((TOKENS, 12), np.float32),
        pooled=rng.standard_normal(5, np.float32),
        time_ids=rng.uniform(0, 100, 6).astype(np.float32),
    )
