"""One graph for onnxruntime: it is not compiled, only given its weights as it uses them, and eased."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from sdxl_trt.bundle import Blob, BlobStore
from sdxl_trt.engines.rewriting import StandIns, attributes_of, replace_nodes
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
    replace_nodes(graph, "GroupNormalization", lambda node: _instance_norm(onnx, graph, node, weights[node.input[1]]))


def _instance_norm(onnx: Any, graph: Any, node: Any, weight: Any) -> Iterator[Any]:
    """x [N, C, …] → [N, G, C/G · …], normalised, → [N, C, …], times scale [C], plus bias [C], in the shape of x.

    `weight` is the initializer of scale, which tells C and the dtype.
    """
    attributes, dtype = attributes_of(onnx, node), onnx.helper.tensor_dtype_to_np_dtype(weight.data_type)
    groups = attributes["num_groups"]
    (x, scale, bias), (y,) = node.input, node.output
    new = StandIns(onnx, graph, y)
    grouped, channels = new.constant("grouped", [0, groups, -1]), new.constant("channels", [0, weight.dims[0], -1])
    one, zero = (new.constant(name, np.full(groups, v, dtype)) for name, v in (("one", 1), ("zero", 0)))
    column = new.constant("column", [1])
    yield new.node("Reshape", [x, grouped], f"{y}.x")
    yield new.node("InstanceNormalization", [f"{y}.x", one, zero], f"{y}.n", epsilon=attributes.get("epsilon", 1e-5))
    yield new.node("Reshape", [f"{y}.n", channels], f"{y}.normal")
    for name, value in (("scale", scale), ("bias", bias)):
        yield new.node("Unsqueeze", [value, column], f"{y}.{name}")
    yield new.node("Mul", [f"{y}.normal", f"{y}.scale"], f"{y}.scaled")
    yield new.node("Add", [f"{y}.scaled", f"{y}.bias"], f"{y}.flat")
    yield new.node("Shape", [x], f"{y}.shape")
    yield new.node("Reshape", [f"{y}.flat", f"{y}.shape"], y)
