"""Attention as onnxruntime's own node, whose kernels for CUDA are fused: nothing of S × S is ever written to memory.

Source: MultiHeadAttention in onnxruntime's ContribOperators.md. ONNX's Attention is younger there, and some versions
ran it on the processor whatever they were told (microsoft/onnxruntime, issue 28025).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sdxl_trt.errors import BuildError

DOMAIN = "com.microsoft"
_SWAPPED = [0, 2, 1, 3]
"""From [N, heads, S, D] to [N, S, heads, D], and back."""


def fuse_attention(onnx: Any, model: Any) -> None:
    """Write every Attention as a MultiHeadAttention, in place.

    It takes [N, S, heads · D] where the other takes [N, heads, S, D]. What is put around it undoes what the exported
    graph does around Attention, and onnxruntime leaves out both.

    Raises:
        BuildError: an Attention has a mask, or a number of heads that is not fixed.
    """
    attentions = [node for node in model.graph.node if node.op_type == "Attention"]
    if not attentions:
        return
    heads = _heads(onnx, model)
    for node in attentions:
        if len(node.input) != 3 or not heads.get(node.input[0]):
            raise BuildError(
                f"the attention {node.name or node.output[0]} cannot be fused for CUDA",
                got=f"{len(node.input)} inputs, {heads.get(node.input[0]) or 'an unknown number of'} heads",
                expected="query, key and value, with a fixed number of heads",
                fix="report this model",
            )
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        if node.op_type == "Attention":
            model.graph.node.extend(_fused(onnx, model.graph, node, heads))
        else:
            model.graph.node.append(node)
    model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))


def _heads(onnx: Any, model: Any) -> dict[str, int]:
    """The second size of every tensor of four dimensions, 0 where it is not fixed."""
    values = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info
    shapes = {value.name: value.type.tensor_type.shape.dim for value in values}
    return {name: dims[1].dim_value for name, dims in shapes.items() if len(dims) == 4}


def _fused(onnx: Any, graph: Any, node: Any, heads: dict[str, int]) -> Iterator[Any]:
    """The nodes for one Attention."""
    (y,), count = node.output, heads[node.input[0]]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    options = {"num_heads": count, "unidirectional": attributes.get("is_causal", 0)}
    if "scale" in attributes:
        options["scale"] = attributes["scale"]

    def make(kind: str, inputs: list[str], output: str, **options: Any) -> Any:
        return onnx.helper.make_node(kind, inputs, [output], name=f"{output}.{kind}", **options)

    def constant(name: str, values: list[int]) -> str:
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), f"{y}.{name}"))
        return f"{y}.{name}"

    joined, apart = constant("joined", [0, 0, -1]), constant("apart", [0, 0, count, -1])
    flat = [f"{y}.{name}" for name in ("query", "key", "value")]
    for x, name in zip(node.input, flat, strict=True):
        yield make("Transpose", [x], f"{name}.heads", perm=_SWAPPED)
        yield make("Reshape", [f"{name}.heads", joined], name)
    yield make("MultiHeadAttention", flat, f"{y}.flat", domain=DOMAIN, **options)
    yield make("Reshape", [f"{y}.flat", apart], f"{y}.heads")
    yield make("Transpose", [f"{y}.heads"], y, perm=_SWAPPED)
