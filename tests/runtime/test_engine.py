"""The engine seam: onnxruntime engines over a small graph whose weights are a file of their own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from small_graph import INPUTS, OUTPUTS, WEIGHT, assert_right, make_entry, random_inputs

from sdxl_trt.bundle import BlobStore, EngineEntry
from sdxl_trt.errors import BundleError, RunError
from sdxl_trt.runtime.device import HostDevice
from sdxl_trt.runtime.engine import Caller, allocate
from sdxl_trt.runtime.ort import OrtEngine
from sdxl_trt.spec import TensorSpec


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


@pytest.fixture
def entry(store: BlobStore) -> EngineEntry:
    return make_entry(store)


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
    assert tensor.at({"slots": 1, "height": 15, "width": 17}) == (1, 3, 120, 136)


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
