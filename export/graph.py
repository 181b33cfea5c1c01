"""A traced graph becomes a file: constants folded, weights by reference, nothing in it but what runs."""

from __future__ import annotations

from typing import Any

import ml_dtypes  # noqa: F401  makes numpy know bfloat16
import numpy as np
import onnx_ir as ir
from onnxscript import optimizer

from sdxl_trt.export.safetensors import TensorRef


def attach_weights(model: ir.Model, tensors: dict[str, TensorRef], dtype: str) -> tuple[str, ...]:
    """Point every initializer at its bytes in the checkpoint, with a Cast where it is stored in another dtype and a
    Transpose where it is stored the other way round.

    Args:
        tensors: by parameter name, as `match_parameters` gives them.
        dtype: the network's.

    Returns:
        The locations used, sorted.
    """
    weights = {str(v.name): v for v in model.graph.initializers.values() if v.const_value is None}
    for name, value in weights.items():
        _attach(model.graph, value, tensors[name], dtype)
    return tuple(sorted({tensors[name].location for name in weights}))


def _attach(graph: ir.Graph, value: ir.Value, place: TensorRef, dtype: str) -> None:
    """Make `value` the tensor at `place`, or what a Cast and a Transpose make of it."""
    key = place.name
    stored, wanted = (ir.DataType.from_numpy(np.dtype(name)) for name in (place.dtype, dtype))
    del graph.initializers[value.name or ""]
    weight = value
    if stored != wanted:
        weight = _before(graph, "Cast", weight, {"to": wanted}, f"{key}.{dtype}")
    if place.transposed:
        weight = _before(graph, "Transpose", weight, {"perm": [1, 0]}, f"{key}.transposed")
    weight.name = key
    weight.shape = ir.Shape(place.stored_shape)
    weight.type = ir.TensorType(stored)
    weight.const_value = ir.ExternalTensor(
        place.location, place.offset, place.length, stored, shape=ir.Shape(place.stored_shape), name=key
    )
    graph.initializers[key] = weight


def _before(graph: ir.Graph, operator: str, value: ir.Value, attributes: dict[str, Any], name: str) -> ir.Value:
    """A new input of a new node, at the graph's start, whose output is `value`, from now on called `name`."""
    source = ir.Value()
    value.name = name
    graph.insert_before(graph[0], ir.node(operator, [source], attributes, outputs=[value]))
    return source


def optimise(model: ir.Model) -> None:
    """Fold constants and shapes, merge common subexpressions; weights stay what they are.

    While it runs they are inputs: an optimiser that sees values folds `Transpose(weight)` into a copy, and merges
    small weights that happen to be equal.
    """
    graph = model.graph
    weights = list(graph.initializers.values())
    graph.initializers.clear()
    for value in weights:
        value.const_value = None
        graph.inputs.append(value)
    optimizer.optimize_ir(model)
    for value in weights:
        graph.inputs.remove(value)
        if value.uses():
            graph.initializers[value.name or ""] = value


def strip(model: ir.Model) -> None:
    """Remove what only a debugger reads (stack traces, the exporter's notes, shapes of intermediates): it holds this
    machine's paths, so the same checkpoint would give another file elsewhere.
    """
    model.metadata_props.clear()
    model.doc_string = None
    model.producer_name, model.producer_version = "sdxl-trt", None
    graph = model.graph
    graph.doc_string = None
    graph.metadata_props.clear()
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        value.metadata_props.clear()
    for node in graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if not value.is_graph_output():
                value.shape = value.type = None
