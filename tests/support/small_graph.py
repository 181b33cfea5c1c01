"""A small graph whose weights are a file of their own, in a bundle."""

from __future__ import annotations

from typing import Any

import numpy as np

from sdxl_trt.bundle import BlobStore, EngineEntry
from sdxl_trt.spec import TensorSpec

INPUTS = (
    TensorSpec(name="a", dtype="float32", shape=("rows", 3)),
    TensorSpec(name="b", dtype="float32", shape=("rows", 3)),
    TensorSpec(name="index", dtype="int32", shape=("rows",)),
    TensorSpec(name="half", dtype="float16", shape=("rows", 3)),
)
OUTPUTS = (
    TensorSpec(name="sum", dtype="float32", shape=("rows", 3)),
    TensorSpec(name="twice", dtype="float16", shape=("rows", 3)),
)
WEIGHT = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.float32)


def make_graph(location: str) -> bytes:
    """sum = (a + b) · W, rows picked by index; twice = half + half. W lies in another file, behind 16 other bytes."""
    from onnx import TensorProto, helper

    types = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int32": TensorProto.INT32}
    inputs, outputs = (
        [helper.make_tensor_value_info(t.name, types[t.dtype], list(t.shape)) for t in tensors]
        for tensors in (INPUTS, OUTPUTS)
    )
    weight = TensorProto(name="W", data_type=TensorProto.FLOAT, dims=WEIGHT.shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "16"), ("length", str(WEIGHT.nbytes))):
        weight.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("MatMul", ["c", "W"], ["d"]),
        helper.make_node("Gather", ["d", "index"], ["sum"]),
        helper.make_node("Add", ["half", "half"], ["twice"]),
    ]
    graph = helper.make_graph(nodes, "small", inputs, outputs, initializer=[weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def make_entry(store: BlobStore, location: str | None = None) -> EngineEntry:
    with store.lock():
        weights = store.put_bytes(b"\0" * 16 + WEIGHT.tobytes())
        file = store.put_bytes(make_graph(location or weights.sha256))
    return EngineEntry(key="0" * 64, file=file, weights=(weights,), inputs=INPUTS, outputs=OUTPUTS)


def random_inputs(rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(rows)
    return {
        "a": rng.standard_normal((rows, 3), np.float32),
        "b": rng.standard_normal((rows, 3), np.float32),
        "index": np.arange(rows, dtype=np.int32)[::-1].copy(),
        "half": rng.standard_normal((rows, 3), np.float32).astype(np.float16),
    }


def assert_right(outputs: dict[str, Any], inputs: dict[str, Any]) -> None:
    np.testing.assert_allclose(outputs["sum"], ((inputs["a"] + inputs["b"]) @ WEIGHT)[inputs["index"]], rtol=1e-5)
    np.testing.assert_array_equal(outputs["twice"], inputs["half"] * 2)
