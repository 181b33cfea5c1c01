"""What the build relies on in TensorRT for RTX and onnxruntime, tried on the libraries themselves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorrt_rtx as trt
from onnx import TensorProto, helper, parser

from sdxl_trt.engines.hooks import plan_writer, progress_monitor
from sdxl_trt.libraries import error_log

SHAPES = ((1, 4, 8, 8), (1, 4, 16, 16), (2, 4, 32, 32))


def convolution(dtype: int = TensorProto.FLOAT16, *, cast_to: int | None = None, location: str = "nowhere") -> Any:
    """y = Conv(x, w): w is 288 bytes of external float16 data at offset 8, perhaps with a Cast behind it."""
    w = TensorProto(name="w", data_type=TensorProto.FLOAT16, dims=(4, 4, 3, 3), data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "8", "length": "288"}.items():
        w.external_data.add(key=key, value=value)
    text = "y = Conv <pads = [1, 1, 1, 1]> (x, w)"
    if cast_to:
        text = f"wide = Cast <to = {cast_to}> (w)\n{text.replace('w)', 'wide)')}"
    nodes = [parser.parse_node(line) for line in text.splitlines()]
    x, y = (helper.make_tensor_value_info(name, dtype, ["slots", 4, "height", "width"]) for name in "xy")
    graph = helper.make_graph(nodes, "convolution", [x], [y], [w])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


class Plan(bytearray):
    """Takes a plan."""

    def write(self, data: bytes) -> int:
        self.extend(data)
        return len(data)


class Verbose(trt.ILogger):  # type: ignore[misc]
    """Keeps every message."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def log(self, severity: Any, message: str) -> None:
        self.text += f"{message}\n"


def compile_convolution(
    weights: np.ndarray,
    *,
    size: int | None = None,
    sms: Sequence[str] = ("SM86",),
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    log: Any = None,
    run: Callable[[Any, Any, Any], Any] = lambda builder, network, config: builder.build_serialized_network(
        network, config
    ),
) -> Any:
    """Build the convolution as `sdxl_trt.engines.trt` does, with each part in the caller's hands."""
    log = log or error_log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    onnx_parser = trt.OnnxParser(network, log)
    assert onnx_parser.load_model_proto(convolution().SerializeToString())
    if not onnx_parser.load_initializer("w", weights.ctypes.data, size or weights.nbytes):
        return log
    assert onnx_parser.parse_model_proto()
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(sms)
    for index, sm in enumerate(sms):
        assert config.set_compute_capability(getattr(trt.ComputeCapability, sm), index)
    profile = builder.create_optimization_profile()
    profile.set_shape("x", *shapes)
    config.add_optimization_profile(profile)
    return run(builder, network, config)


def constant(value: float) -> np.ndarray:
    return np.full((4, 4, 3, 3), value, np.float16)


def test_weights_given_by_address_are_in_the_plan() -> None:
    pattern = {value: np.full(36, value, np.float16).tobytes() for value in (1.5, 1.25)}
    for given, other in ((1.5, 1.25), (1.25, 1.5)):
        plan = bytes(compile_convolution(constant(given)))
        assert pattern[given] in plan
        assert pattern[other] not in plan


@pytest.mark.parametrize("size", [286, 290, 576])
def test_weights_of_another_size_are_refused(size: int) -> None:
    log = compile_convolution(np.zeros(1024, np.float16), size=size)
    assert f"initializer size {size} mismatches" in log.errors[0]


def test_refused_weights_would_be_looked_for_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the build stops at the first refusal: the parser goes on with whatever file the graph names."""
    (tmp_path / "nowhere").write_bytes(bytes(8) + constant(1.5).tobytes())
    monkeypatch.chdir(tmp_path)
    log = error_log(trt)
    network = trt.Builder(log).create_network(0)
    onnx_parser = trt.OnnxParser(network, log)
    assert onnx_parser.load_model_proto(convolution().SerializeToString())
    assert not onnx_parser.load_initializer("w", constant(1.5).ctypes.data, 2)
    assert onnx_parser.parse_model_proto()


def test_stream_gets_the_plan() -> None:
    """The same bytes as in one piece; builds differ from one another in a few (a time stamp, an identifier)."""
    plan = Plan()

    def run(builder: Any, network: Any, config: Any) -> None:
        whole = bytes(builder.build_serialized_network(network, config))
        assert builder.build_serialized_network_to_stream(network, config, plan_writer(trt, plan))
        different = sum(a != b for a, b in zip(whole, plan, strict=True))
        print(f"{len(plan)} bytes, {different} of them different")
        assert different <= 32

    compile_convolution(constant(1.5), run=run)
    assert len(plan) > 100_000


def test_failed_write_is_kept() -> None:
    """TensorRT for RTX 1.7 takes no notice of a write that failed, and says that the plan was built."""

    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    writer = plan_writer(trt, Full())
    compile_convolution(
        constant(1.5), run=lambda builder, *rest: builder.build_serialized_network_to_stream(*rest, writer)
    )
    assert writer.error.errno == 28


def test_plan_for_two_capabilities_is_no_larger() -> None:
    one, other, both = (
        len(bytes(compile_convolution(constant(1.5), sms=sms))) for sms in (["SM86"], ["SM120"], ["SM86", "SM120"])
    )
    print(f"SM 86: {one}, SM 120: {other}, both: {both} bytes")
    assert both < 1.05 * max(one, other)


def test_compute_capabilities_are_targets() -> None:
    log = Verbose()
    compile_convolution(constant(1.5), sms=["SM86", "SM89", "SM120"], log=log)
    assert "Number of target compute capabilities: 3" in log.text


def test_profile_decides_the_shapes() -> None:
    memory = {}
    for largest in (32, 64):
        log = Verbose()
        compile_convolution(constant(1.5), shapes=(*SHAPES[:2], (2, 4, largest, largest)), log=log)
        assert f"[8,{largest}]\theight" in log.text
        assert "[1,2]\tslots" in log.text
        memory[largest] = int(re.search(r"Total Activation Memory: (\d+)", log.text)[1])  # type: ignore[index]
    print(f"activation memory by largest edge: {memory}")
    assert memory[64] > memory[32]


@pytest.mark.parametrize(
    ("dtype", "heads", "width", "builds"),
    [
        (TensorProto.FLOAT16, 2, 64, True),
        (TensorProto.FLOAT, 2, 64, False),
        (TensorProto.FLOAT16, 2, 512, False),
    ],
)
def test_attention_is_fused_or_refused(dtype: int, heads: int, width: int, builds: bool) -> None:
    """A plan of the UNet is proof that its attention is fused: what has no fused kernel does not build."""
    shape = ["rows", heads, "tokens", width]
    q, k, v, y = (helper.make_tensor_value_info(name, dtype, shape) for name in "qkvy")
    graph = helper.make_graph([parser.parse_node("y = Attention (q, k, v)")], "attention", [q, k, v], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    builder = trt.Builder(error_log(trt))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, error_log(trt)).parse(model.SerializeToString())
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    for name in "qkv":
        profile.set_shape(name, *((rows, heads, tokens, width) for rows, tokens in ((1, 64), (2, 256), (8, 1024))))
    config.add_optimization_profile(profile)
    assert (builder.build_serialized_network(network, config) is not None) == builds


def test_monitor_is_told_of_steps() -> None:
    seen = list[int]()

    def run(builder: Any, network: Any, config: Any) -> Any:
        config.progress_monitor = progress_monitor(trt, lambda done, total: seen.append(done))
        return builder.build_serialized_network(network, config)

    assert compile_convolution(constant(1.5), run=run)
    print(f"steps reported: {seen}")
    assert seen == sorted(seen)
    assert seen[-1] > 80


def test_onnxruntime_reads_weights_beside_the_graph(tmp_path: Path) -> None:
    """A file without a suffix, named by its hash; mapped, not read, where the graph uses it as it is."""
    name, weights = "ab" * 32, np.random.default_rng(0).standard_normal((4, 4, 3, 3)).astype(np.float16)
    (tmp_path / name).write_bytes(bytes(8) + weights.tobytes())
    graph = tmp_path / ("cd" * 32)
    graph.write_bytes(convolution(TensorProto.FLOAT, cast_to=TensorProto.FLOAT, location=name).SerializeToString())
    x = np.zeros((1, 4, 5, 5), np.float32)
    x[0, :, 2, 2] = 1
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph, plain, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    np.testing.assert_allclose(y[0, :, 1:4, 1:4], weights.astype(np.float32).sum(1)[:, ::-1, ::-1], rtol=1e-6)
    assert str(tmp_path / name) in Path("/proc/self/maps").read_text()


def test_onnxruntime_folds_casts_of_weights(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(8) + constant(1.5).tobytes())
    model = convolution(TensorProto.FLOAT, cast_to=TensorProto.FLOAT, location="weights")
    (tmp_path / "graph").write_bytes(model.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(tmp_path / "graph", options, providers=["CPUExecutionProvider"])
    count = {
        name: Counter(node.op_type for node in onnx.load(tmp_path / name, load_external_data=False).graph.node)["Cast"]
        for name in ("graph", "optimised.onnx")
    }
    assert count == {"graph": 1, "optimised.onnx": 0}
