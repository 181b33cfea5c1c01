"""Graphs for onnxruntime."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from closeness import relative_error
from onnx import TensorProto, helper, numpy_helper, parser

from sdxl_trt.engines.ort import ease_group_norms


@pytest.mark.parametrize(("groups", "channels"), [(1, 6), (3, 6), (6, 6), (8, 32)])
@pytest.mark.parametrize("size", [(4, 4), (5, 7), (9,)])
def test_group_norms_are_the_same_numbers(groups: int, channels: int, size: tuple[int, ...]) -> None:
    """Against onnxruntime's own expansion of the operator, and against torch's; float32."""
    import torch

    rng = np.random.default_rng(groups)
    scale, bias = (rng.standard_normal(channels).astype(np.float32) for _ in range(2))
    x = (3 + 5 * rng.standard_normal((2, channels, *size))).astype(np.float32)
    node = parser.parse_node(f"y = GroupNormalization <num_groups = {groups}, epsilon = 0.001> (x, scale, bias)")
    graph = helper.make_graph(
        [node],
        "norm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, *"hw"[: len(size)]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", channels, *"hw"[: len(size)]])],
        [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    before = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    ease_group_norms(onnx, model)
    onnx.checker.check_model(model, full_check=True)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert (kinds["GroupNormalization"], kinds["InstanceNormalization"]) == (0, 1)
    after = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    xt, scale_t, bias_t = map(torch.from_numpy, (x, scale, bias))
    theirs = torch.nn.functional.group_norm(xt, groups, scale_t, bias_t, 0.001)
    for name, reference in (("onnxruntime", before), ("torch", theirs.numpy())):
        assert relative_error(after, reference, 1e-6, name) <= 1e-6
