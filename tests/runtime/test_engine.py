"""The engine seam: onnxruntime engines over a small graph whose weights are a file of their own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdxl_trt.bundle import BlobStore, EngineEntry
from sdxl_trt.errors import BundleError, RunError
from sdxl_trt.runtime.device import HostDevice
from sdxl_trt.runtime.engine import Caller, allocate, shape_of
from sdxl_trt.runtime.ort import OrtEngine
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


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


@pytest.fixture
def entry(store: BlobStore) -> EngineEntry:
    return make_entry(store)


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


def test_a_bound_engine_reads_and_writes_the_buffers_themselves(store: BlobStore, entry: EngineEntry) -> None:
    engine, device = OrtEngine(store, entry, "small"), HostDevice()
    buffers = allocate(engine, device, {"rows": 4})
    binding = engine.bind(buffers)
    for seed in (4, 4, 4):  # again and again, through the same addresses
        inputs = {name: array * np.array(seed, array.dtype) for name, array in random_inputs(4).items()}
        inputs["index"] = random_inputs(4)["index"]
        for name, array in inputs.items():
            device.upload(buffers[name], array, None)
        binding.enqueue(None)
        assert_right({name: device.download(buffers[name], None) for name in engine.outputs}, inputs)


def test_bindings_of_several_shapes_live_side_by_side(store: BlobStore, entry: EngineEntry) -> None:
    engine, device = OrtEngine(store, entry, "small", threads=1), HostDevice()
    largest = allocate(engine, device, {"rows": 5})
    bindings = {rows: engine.bind({name: buffer[:rows] for name, buffer in largest.items()}) for rows in (5, 2, 3)}
    for rows in (3, 5, 2, 5):
        inputs = random_inputs(rows)
        for name, array in inputs.items():
            device.upload(largest[name][:rows], array, None)
        bindings[rows].enqueue(None)
        assert_right({name: device.download(largest[name][:rows], None) for name in engine.outputs}, inputs)


def test_a_caller_takes_any_shape(store: BlobStore, entry: EngineEntry) -> None:
    caller = Caller(OrtEngine(store, entry, "small"), HostDevice())
    earlier = caller({"rows": 2}, **random_inputs(2))
    for rows in (3, 3, 2):
        assert_right(caller({"rows": rows}, **random_inputs(rows)), random_inputs(rows))
    assert_right(earlier, random_inputs(2))  # results are copies


def test_shapes_follow_from_axes() -> None:
    tensor = TensorSpec(name="image", dtype="float32", shape=("slots", 3, "8*height", "8*width"))
    assert shape_of(tensor, {"slots": 1, "height": 15, "width": 17}) == (1, 3, 120, 136)


@pytest.mark.parametrize("which", ["file", "weights"])
@pytest.mark.parametrize("damage", ["flipped", "shorter", "gone"])
def test_nothing_is_deserialised_that_fails_its_check(
    store: BlobStore, entry: EngineEntry, which: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    def never(*_: object, **__: object) -> None:
        pytest.fail("a session was created")

    monkeypatch.setattr(onnxruntime, "InferenceSession", never)
    path = store.path(entry.file if which == "file" else entry.weights[0])
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if damage == "flipped" else content[:-1])
    with pytest.raises(BundleError, match="damaged or was altered") as caught:
        OrtEngine(store, entry, "small")
    assert caught.value.expected


def test_what_is_no_graph_is_refused(store: BlobStore, entry: EngineEntry) -> None:
    with store.lock():
        file = store.put_bytes(b"not a graph")
    with pytest.raises(BundleError, match="cannot load small") as caught:
        OrtEngine(store, dataclasses.replace(entry, file=file), "small")
    assert caught.value.got
    assert caught.value.fix


@pytest.mark.parametrize("location", ["../../../outside", "/etc/passwd", "f" * 64])
def test_weights_outside_the_bundle_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "outside").write_bytes(b"\0" * 16 + WEIGHT.tobytes())
    store = BlobStore(tmp_path / "bundle")
    with pytest.raises(BundleError, match="cannot load small"):
        OrtEngine(store, make_entry(store, location), "small")


@pytest.mark.parametrize(
    ("inputs", "outputs", "got"),
    [
        (INPUTS[:-1], OUTPUTS, "a tensor 'half'"),
        ((*INPUTS, TensorSpec(name="more", dtype="float32", shape=(1,))), OUTPUTS, "no tensor 'more'"),
        ((dataclasses.replace(INPUTS[0], dtype="float16"), *INPUTS[1:]), OUTPUTS, "float32 [None, 3] tensor 'a'"),
        ((dataclasses.replace(INPUTS[0], shape=("rows", 4)), *INPUTS[1:]), OUTPUTS, "float32 [None, 3] tensor 'a'"),
        (INPUTS, (dataclasses.replace(OUTPUTS[0], shape=("rows",)), OUTPUTS[1]), "float32 [None, 3] tensor 'sum'"),
    ],
)
def test_a_graph_with_other_tensors_than_the_manifest_is_refused(
    store: BlobStore,
    entry: EngineEntry,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    got: str,
) -> None:
    with pytest.raises(BundleError, match="has other tensors") as caught:
        OrtEngine(store, dataclasses.replace(entry, inputs=inputs, outputs=outputs), "small")
    assert caught.value.got == got


def test_a_run_that_fails_says_what_failed(store: BlobStore, entry: EngineEntry) -> None:
    device = HostDevice()
    engine = OrtEngine(store, entry, "small")
    buffers = allocate(engine, device, {"rows": 3})
    binding = engine.bind({**buffers, "b": device.allocate((2, 3), np.float32)})
    with pytest.raises(RunError, match="could not run small") as caught:
        binding.enqueue(None)
    assert caught.value.got
