"""What the runtime relies on in the driver and in onnxruntime's CUDA provider, tried on a real GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_graph import assert_right, make_entry, random_inputs

from sdxl_trt.bundle import BlobStore
from sdxl_trt.engines.attention import DOMAIN
from sdxl_trt.errors import FlavourUnavailable, RunError
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.engine import Caller, allocate
from sdxl_trt.runtime.ort_cuda import PROVIDER, CudaOrtEngine

pytestmark = pytest.mark.gpu

HEADS, SIZE, LENGTH = 10, 64, 4096
"""Of the self-attention of SDXL's UNet at 1024²; scores of one row would be 335 MB in float16."""


@pytest.fixture
def engine(gpu: CudaDevice, tmp_path: Path) -> CudaOrtEngine:
    store = BlobStore(tmp_path)
    try:
        return CudaOrtEngine(store, make_entry(store), "small", gpu)
    except FlavourUnavailable as error:
        pytest.skip(f"{error.what}: {error.got}")


def test_a_recording_cannot_wait(gpu: CudaDevice) -> None:
    """Recording is checked: what could not be replayed is refused then and there, and the stream is usable again."""
    stream, buffer = gpu.stream(), gpu.allocate((4,), np.float32)
    with pytest.raises(RunError):
        gpu.capture(
            lambda stream: gpu._context.check(gpu._context.cu.cuStreamSynchronize(stream.handle), "wait"), stream
        )  # type: ignore[attr-defined]
    gpu.upload(buffer, np.arange(4, dtype=np.float32), stream)
    np.testing.assert_array_equal(gpu.download(buffer, stream), np.arange(4))


def test_a_recorded_copy_takes_what_is_there_when_it_is_replayed(gpu: CudaDevice) -> None:
    """Twice, with changed content."""
    stream = gpu.stream()
    source, target = gpu.allocate((64,), np.float32), gpu.allocate((64,), np.float32)
    launch = gpu.capture(lambda stream: gpu.copy(source, target, stream), stream)
    assert not gpu.download(target, stream).any()  # recorded, and not run
    for value in (1, 2):
        gpu.upload(source, np.full(64, value, np.float32), stream)
        launch(stream)
        assert (gpu.download(target, stream) == value).all()


def test_onnxruntimes_recordings_take_changed_inputs(engine: CudaOrtEngine, gpu: CudaDevice) -> None:
    """One recording per shape, each replayed with other inputs than it was recorded with, in turn with the others."""
    caller = Caller(engine, gpu)
    rng = np.random.default_rng(0)
    for rows in (4, 2, 4, 3, 2, 4):
        inputs = random_inputs(rows)
        inputs["a"] = rng.standard_normal(inputs["a"].shape).astype(np.float32)
        assert_right(caller({"rows": rows}, **inputs), inputs)


def test_onnxruntimes_runs_are_in_the_order_of_our_stream(engine: CudaOrtEngine, gpu: CudaDevice) -> None:
    stream, buffers = gpu.stream(), allocate(engine, gpu, {"rows": 3})
    binding, inputs = engine.bind(buffers), random_inputs(3)
    for name, array in inputs.items():
        gpu.upload(buffers[name], array, stream)
    total = gpu.allocate((200, 3, 3), np.float16)
    for factor in range(200):  # far ahead of the GPU
        gpu.upload(buffers["half"], np.full((3, 3), factor, np.float16), stream)
        binding.enqueue(stream)
        gpu.copy(buffers["twice"], total[factor], stream)
    np.testing.assert_array_equal(gpu.download(total, stream)[:, 0, 0], 2 * np.arange(200))


def test_attention_is_fused(engine: CudaOrtEngine, gpu: CudaDevice, tmp_path: Path) -> None:
    """It runs on the GPU, and the memory that it takes is less than its scores would need."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(attention(), options, providers=[PROVIDER])
    inputs = {name: np.zeros((1, LENGTH, HEADS * SIZE), np.float16) for name in "qkv"}
    before = gpu.memory().free
    session.run(None, inputs)
    taken, scores = before - gpu.memory().free, 2 * HEADS * LENGTH**2
    print(f"memory taken: measured {taken / 1e6:.0f} MB, required < {scores / 1e6:.0f} MB (its scores)")
    events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    providers = {e["args"]["provider"] for e in events if e.get("args", {}).get("op_name") == "MultiHeadAttention"}
    assert providers == {PROVIDER}
    assert taken < scores


def attention() -> bytes:
    """One MultiHeadAttention."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [1, LENGTH, HEADS * SIZE]) for name in "qkvy"]
    node = helper.make_node("MultiHeadAttention", [*"qkv"], ["y"], domain=DOMAIN, num_heads=HEADS)
    graph = helper.make_graph([node], "attention", values[:3], values[3:])
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(DOMAIN, 1)]
    model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=11).SerializeToString()
    return model
