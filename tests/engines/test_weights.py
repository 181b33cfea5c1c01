"""Weights as onnxruntime is given them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser

from sdxl_trt.engines.weights import ALIGNMENT, set_location, write_weights

RNG = np.random.default_rng(0)
STORED = {
    "cast": RNG.standard_normal((3,)).astype(np.float16),
    "turned": RNG.standard_normal((3, 4)).astype(np.float16),
    "plain": RNG.standard_normal((4, 3)).astype(np.float32),
    "shared": RNG.standard_normal((4, 4)).astype(np.float16),
}
NODES = """
    cast_wide = Cast <to = 1> (cast)
    turned_wide = Cast <to = 1> (turned)
    turned_back = Transpose <perm = [1, 0]> (turned_wide)
    shared_wide = Cast <to = 1> (shared)
    shared_back = Transpose <perm = [1, 0]> (shared_wide)
    a = MatMul(x, shared_wide)
    b = MatMul(a, shared_back)
    c = MatMul(b, turned_back)
    d = MatMul(b, plain)
    e = Add(c, d)
    y = Add(e, cast_wide)
"""


class Stored:
    """What `write_weights` asks of a source: a file, and which tensors lie where in it."""

    def __init__(self) -> None:
        self.places: dict[str, tuple[str, int, int]] = {}
        data = bytearray(b"header")  # offsets of no alignment at all
        for name, values in STORED.items():
            self.places[name] = ("checkpoint", len(data), values.nbytes)
            data += values.tobytes()
        self._data = np.frombuffer(bytes(data), np.uint8)

    def weights(self, location: str) -> NDArray[np.uint8]:
        assert location == "checkpoint"
        return self._data

    def external(self, model: Any) -> Any:
        for tensor in model.graph.initializer:
            yield tensor, self.places[tensor.name]


def graph(initializers: list[TensorProto]) -> onnx.ModelProto:
    body = helper.make_graph(
        [parser.parse_node(line) for line in NODES.strip().splitlines()],
        "weights",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        initializers,
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


def by_reference(name: str, values: NDArray[Any]) -> TensorProto:
    kind = helper.np_dtype_to_tensor_dtype(values.dtype)
    return TensorProto(name=name, data_type=kind, dims=values.shape, data_location=TensorProto.EXTERNAL)


@pytest.fixture
def written(tmp_path: Any) -> tuple[onnx.ModelProto, Any]:
    """The changed graph, saved beside its new weights file."""
    model, sink = graph([by_reference(*each) for each in STORED.items()]), io.BytesIO()
    write_weights(onnx, Stored(), model, sink)  # type: ignore[arg-type]
    set_location(model, "weights")
    (tmp_path / "weights").write_bytes(sink.getvalue())
    (tmp_path / "graph.onnx").write_bytes(model.SerializeToString())
    return model, tmp_path


def test_the_graph_computes_the_same(written: Any) -> None:
    """To the bit: what is cast and turned beforehand is what was cast and turned when the graph ran."""
    inside = graph([numpy_helper.from_array(values, name) for name, values in STORED.items()])
    x = RNG.standard_normal((5, 4)).astype(np.float32)
    expected, got = (
        onnxruntime.InferenceSession(model).run(None, {"x": x})[0]
        for model in (inside.SerializeToString(), str(written[1] / "graph.onnx"))
    )
    np.testing.assert_array_equal(got, expected)


def test_only_what_several_nodes_read_is_turned_at_run_time(written: Any) -> None:
    model, _ = written
    assert [node.op_type for node in model.graph.node].count("Cast") == 0
    (turned,) = [node for node in model.graph.node if node.op_type == "Transpose"]
    assert list(turned.input) == ["shared"]
    kinds = {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in model.graph.initializer}
    assert kinds["turned"] == (TensorProto.FLOAT, [4, 3])
    assert kinds["shared"] == (TensorProto.FLOAT, [4, 4])
    onnx.checker.check_model(str(written[1] / "graph.onnx"), full_check=True)


def test_weights_are_aligned_and_do_not_overlap(written: Any) -> None:
    model, folder = written
    places = []
    for tensor in model.graph.initializer:
        data = {entry.key: entry.value for entry in tensor.external_data}
        places.append((int(data["offset"]), int(data["length"])))
        assert data["location"] == "weights"
    assert all(offset % ALIGNMENT == 0 for offset, _ in places)
    ends = [offset + length for offset, length in places]
    assert all(end <= start for end, (start, _) in zip(ends, places[1:], strict=False))
    assert ends[-1] == (folder / "weights").stat().st_size
