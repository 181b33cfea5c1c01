"""One graph for onnxruntime: it is not compiled, only given its weights as it uses them, and eased."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from sdxl_trt.bundle import Blob, BlobStore
from sdxl_trt.engines.source import Source
from sdxl_trt.engines.weights import set_location, write_weights
from sdxl_trt.spec import GraphSpec

Rewriting = Callable[[Any, Any], None]
"""Changes a graph in place, given the module onnx and the model."""


def store_graph(
    source: Source, spec: GraphSpec, precision: str, store: BlobStore, rewritings: Iterable[Rewriting]
) -> tuple[Blob, Blob]:
    """Store a graph's ONNX file and its weights file, which it names by its SHA-256; returns both.

    onnxruntime finds the second beside the first when it is given the first's path.

    Raises:
        ExportError: the graph or its weights changed since they were exported.
        OutputError: the bundle cannot be written to, or the disk is full.
    """
    import onnx

    model = source.graph(spec, precision)
    with store.writer() as writer:
        write_weights(onnx, source, model, writer)
    set_location(model, writer.blob().sha256)
    for rewrite in rewritings:
        rewrite(onnx, model)
    return store.put_bytes(model.SerializeToString(deterministic=True)), writer.blob()


def ease_group_norms(onnx: Any, model: Any) -> None:
    """Write every GroupNormalization as InstanceNormalization over grouped channels, scaled and shifted afterwards.

    onnxruntime 1.31 has no CPU kernel for the first and runs some fifteen small operators in its place; it has one for
    the second. The numbers are the same but for rounding.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type == "GroupNormalization":
            graph.node.extend(_instance_norm(onnx, graph, node, weights[node.input[1]]))
        else:
            graph.node.append(node)


def _instance_norm(onnx: Any, graph: Any, node: Any, weight: Any) -> Iterator[Any]:
    """x [N, C, …] → [N, G, C/G · …], normalised, → [N, C, …], times scale [C], plus bias [C], in the shape of x.

    `weight` is the initializer of scale, which tells C and the dtype.
    """
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    groups = attributes["num_groups"]
    (x, scale, bias), (y,) = node.input, node.output

    def constant(name: str, values: Any) -> str:
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), f"{y}.{name}"))
        return f"{y}.{name}"

    def make(kind: str, inputs: list[str], output: str, **options: Any) -> Any:
        return onnx.helper.make_node(kind, inputs, [output], name=f"{output}.{kind}", **options)

    grouped, channels = constant("grouped", [0, groups, -1]), constant("channels", [0, weight.dims[0], -1])
    dtype = onnx.helper.tensor_dtype_to_np_dtype(weight.data_type)
    one, zero = (constant(name, np.full(groups, v, dtype)) for name, v in (("one", 1), ("zero", 0)))
    column = constant("column", [1])
    yield make("Reshape", [x, grouped], f"{y}.x")
    yield make("InstanceNormalization", [f"{y}.x", one, zero], f"{y}.n", epsilon=attributes.get("epsilon", 1e-5))
    yield make("Reshape", [f"{y}.n", channels], f"{y}.normal")
    for name, value in (("scale", scale), ("bias", bias)):
        yield make("Unsqueeze", [value, column], f"{y}.{name}")
    yield make("Mul", [f"{y}.normal", f"{y}.scale"], f"{y}.scaled")
    yield make("Add", [f"{y}.scaled", f"{y}.bias"], f"{y}.flat")
    yield make("Shape", [x], f"{y}.shape")
    yield make("Reshape", [f"{y}.flat", f"{y}.shape"], y)
