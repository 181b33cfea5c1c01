"""One graph for onnxruntime: it is not compiled, only told where its weights lie in the bundle."""

from __future__ import annotations

from sdxl_trt.engines.source import Source
from sdxl_trt.spec import GraphSpec


def portable_graph(source: Source, spec: GraphSpec, precision: str) -> bytes:
    """The ONNX file of a graph whose weights files lie beside it, each under its own SHA-256.

    onnxruntime opens and maps them itself when it is given the path of the graph.

    Raises:
        ExportError: the graph changed since it was exported.
    """
    model = source.graph(spec, precision)
    contents = {
        location: source.index.weights[location].content for location in source.entry(spec.name, precision).weights
    }
    for tensor, (location, _, _) in source.external(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = contents[location].sha256
    data: bytes = model.SerializeToString(deterministic=True)
    return data
