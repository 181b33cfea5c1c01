"""Operations, bytes and live memory of a graph at given axes, counted node by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sdxl_trt.costs.shapes import Tensor, propagate
from sdxl_trt.libraries import require


@dataclass(frozen=True, kw_only=True)
class Counts:
    """One run of a graph at one shape. What is counted, and how: see `sdxl_trt.costs`."""

    parameters: int
    weights: int
    """Bytes."""
    operations: int
    traffic: int
    """Bytes of activations read and written."""
    live: tuple[int, ...]
    """Bytes of activations that exist while each of the heavy nodes runs."""


def count(model: Any, axes: Mapping[str, int]) -> Counts:
    """Count an onnx.ModelProto as `export` writes it; `axes` and errors as `propagate` has them."""
    tensors = propagate(model, axes)
    graph, fixed = model.graph, _fixed(model.graph)
    operations = traffic = 0
    for node in graph.node:
        if node.op_type in HEAVY:
            operations += HEAVY[node.op_type](node, tensors)
            moved = {name for name in (*node.input, *node.output) if name and name not in fixed}
            traffic += sum(tensors[name].bytes for name in moved)
    parameters, weights = _weights(model, tensors)
    return Counts(
        parameters=parameters,
        weights=weights,
        operations=operations,
        traffic=traffic,
        live=_live(graph, tensors, fixed),
    )


def _conv(node: Any, tensors: Mapping[str, Tensor]) -> int:
    _, *kernel = tensors[node.input[1]].shape  # [C_out, C_in / groups, …]
    operations = 2 * tensors[node.output[0]].elements
    for size in kernel:
        operations *= size
    return operations


def _matmul(node: Any, tensors: Mapping[str, Tensor]) -> int:
    return 2 * tensors[node.output[0]].elements * tensors[node.input[0]].shape[-1]


def _gemm(node: Any, tensors: Mapping[str, Tensor]) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return 2 * tensors[node.output[0]].elements * tensors[node.input[0]].shape[0 if transposed else 1]


def _attention(node: Any, tensors: Mapping[str, Tensor]) -> int:
    """Scores and their product with the values; masks save nothing."""
    query, key = (tensors[name] for name in node.input[:2])  # [rows, heads, tokens, C] or [rows, tokens, heads · C]
    return 2 * key.shape[-2] * (query.elements + tensors[node.output[0]].elements)


HEAVY: dict[str, Callable[[Any, Mapping[str, Tensor]], int]] = {
    "Conv": _conv,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Attention": _attention,
}
"""Operations of each heavy operator."""


def _fixed(graph: Any) -> set[str]:
    """Values that no input of the graph changes: weights, constants, and what is made of them alone."""
    fixed = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if fixed.issuperset(name for name in node.input if name):
            fixed.update(node.output)
    return fixed


def _weights(model: Any, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """Parameters, and their bytes in the dtype that they are cast to before anything else is done with them."""
    cast_to = {node.input[0]: tensors[node.output[0]].dtype for node in model.graph.node if node.op_type == "Cast"}
    external = require("onnx", "count a graph's operations").TensorProto.EXTERNAL
    names = [tensor.name for tensor in model.graph.initializer if tensor.data_location == external]
    sizes = {name: tensors[name].elements for name in names}
    itemsize = {name: cast_to.get(name, tensors[name].dtype).itemsize for name in names}
    return sum(sizes.values()), sum(size * itemsize[name] for name, size in sizes.items())


def _live(graph: Any, tensors: Mapping[str, Tensor], fixed: set[str]) -> tuple[int, ...]:
    """Bytes that exist at each heavy node: the graph's inputs and outputs always, others until their last use."""
    always = {value.name for value in (*graph.input, *graph.output)}
    lasting = always | fixed
    last = {name: place for place, node in enumerate(graph.node) for name in node.input}
    now, found = sum(tensors[name].bytes for name in always), []
    for place, node in enumerate(graph.node):
        now += sum(tensors[o].bytes for o in node.output if o in last and o not in lasting)
        if node.op_type in HEAVY:
            found.append(now)
        now -= sum(tensors[i].bytes for i in set(node.input) if i and last[i] == place and i not in lasting)
    return tuple(found)
