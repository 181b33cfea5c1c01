"""Attention as onnxruntime's own node, whose kernels for CUDA are fused: nothing of S × S is ever written to memory.

Source: MultiHeadAttention in onnxruntime's ContribOperators.md. ONNX's Attention is younger there, and some versions
ran it on the processor whatever they were told (microsoft/onnxruntime, issue 28025).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sdxl_trt.engines.rewriting import StandIns, attributes_of, replace_nodes
from sdxl_trt.errors import BuildError

DOMAIN = "com.microsoft"
_SWAPPED = [0, 2, 1, 3]
"""From [N, heads, S, D] to [N, S, heads, D], and back."""


def fuse_attention(onnx: Any, model: Any) -> None:
    """Write every Attention as a MultiHeadAttention, in place.

    It takes [N, S, heads · D] where the other takes [N, heads, S, D]. What is put around it undoes what the exported
    graph does around Attention, and onnxruntime leaves out both.

    Raises:
        BuildError: an Attention has a mask, a softcap, or a number of heads that is not fixed.
    """
    attentions = [node for node in model.graph.node if node.op_type == "Attention"]
    if not attentions:
        return
    heads = _heads(onnx, model)
    for node in attentions:
        count, softcap = heads.get(node.input[0]), attributes_of(onnx, node).get("softcap", 0.0)
        if len(node.input) != 3 or not count or softcap:
            raise BuildError(
                f"the attention {node.name or node.output[0]} cannot be fused for CUDA",
                got=f"{len(node.input)} inputs, {count or 'an unknown number of'} heads, softcap {softcap:g}",
                expected="query, key and value, a fixed number of heads, no softcap",
                fix="report this model",
            )
    replace_nodes(model.graph, "Attention", lambda node: _fused(onnx, model.graph, node, heads))
    model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))


def _heads(onnx: Any, model: Any) -> dict[str, int]:
    """The second size of every tensor of four dimensions, 0 where it is not fixed."""
    values = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info
    shapes = {value.name: value.type.tensor_type.shape.dim for value in values}
    return {name: dims[1].dim_value for name, dims in shapes.items() if len(dims) == 4}


def _fused(onnx: Any, graph: Any, node: Any, heads: dict[str, int]) -> Iterator[Any]:
    """The nodes for one Attention."""
    (y,), count, attributes = node.output, heads[node.input[0]], attributes_of(onnx, node)
    options = {"num_heads": count, "unidirectional": attributes.get("is_causal", 0)}
    if "scale" in attributes:
        options["scale"] = attributes["scale"]
    new = StandIns(onnx, graph, y)
    joined, apart = new.constant("joined", [0, 0, -1]), new.constant("apart", [0, 0, count, -1])
    flat = [f"{y}.{name}" for name in ("query", "key", "value")]
    for x, name in zip(node.input, flat, strict=True):
        yield new.node("Transpose", [x], f"{name}.heads", perm=_SWAPPED)
        yield new.node("Reshape", [f"{name}.heads", joined], name)
    yield new.node("MultiHeadAttention", flat, f"{y}.flat", domain=DOMAIN, **options)
    yield new.node("Reshape", [f"{y}.flat", apart], f"{y}.heads")
    yield new.node("Transpose", [f"{y}.heads"], y, perm=_SWAPPED)
