"""A weights file of one graph's own, for onnxruntime: every weight as the nodes that compute with it want it.

onnxruntime maps such a file, and reads no more of it than it uses. A weight that has a Cast or a Transpose behind it
instead would be converted whenever the graph is loaded, and stay in memory twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.engines.hooks import Sink
from sdxl_trt.engines.source import Source

ALIGNMENT = 64
"""Every weight begins at a multiple of so many bytes: a cache line, which vector instructions read best."""

Change = Callable[[NDArray[Any]], NDArray[Any]]


def write_weights(onnx: Any, source: Source, model: Any, sink: Sink) -> None:
    """Write the weights of a graph one after another, and let its initializers name their places (but no file yet).

    What is cast or transposed first is written so, and the Cast and the Transpose leave the graph.

    Args:
        onnx: the module.
        source: has the files that the initializers name now.
        model: an onnx.ModelProto, which is changed.
        sink: takes the file.

    Raises:
        ExportError: a weights file is not what it was when it was exported.
        OSError: the sink raised it.
    """
    folds = _Folds(onnx, model.graph)
    end = 0
    for tensor, (location, offset, length) in source.external(model):
        stored = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        values = source.weights(location)[offset : offset + length].view(stored).reshape(tuple(tensor.dims))
        for change in folds.of(tensor):
            values = change(values)
        values = np.ascontiguousarray(values)
        padding = -end % ALIGNMENT
        sink.write(b"\0" * padding)
        sink.write(values.reshape(-1).view(np.uint8).data)
        tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor.dims[:] = values.shape
        _set_place(tensor, end + padding, values.nbytes)
        end += padding + values.nbytes
    folds.finish()


def set_location(model: Any, location: str) -> None:
    """Name the file that the external initializers are in."""
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location


def _set_place(tensor: Any, offset: int, length: int) -> None:
    places = {"location": "", "offset": str(offset), "length": str(length)}
    del tensor.external_data[:]
    for key, value in places.items():
        tensor.external_data.add(key=key, value=value)


class _Folds:
    """Casts and transpositions of weights, as they are taken out of a graph."""

    def __init__(self, onnx: Any, graph: Any) -> None:
        self._onnx, self._graph = onnx, graph
        self._readers: defaultdict[str, list[Any]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._readers[name].append(node)
        self._folded: set[str] = set()
        """Outputs of the nodes that are gone."""

    def of(self, tensor: Any) -> Iterator[Change]:
        """What is done to a weight before anything else; what comes out of it is then called as the weight.

        So the graphs of one network are the same whatever dtype its weights were stored in.
        """
        while len(readers := self._readers[tensor.name]) == 1:
            change = self._change(readers[0])
            if change is None:
                return
            self._rename(readers[0].output[0], tensor.name)
            yield change

    def _rename(self, output: str, name: str) -> None:
        self._folded.add(output)
        self._readers[name] = self._readers[output]
        for node in self._readers[name]:
            for place, read in enumerate(node.input):
                if read == output:
                    node.input[place] = name

    def _change(self, node: Any) -> Change | None:
        attributes = {a.name: self._onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Cast":
            dtype = self._onnx.helper.tensor_dtype_to_np_dtype(attributes["to"])
            return lambda values: values.astype(dtype)
        if node.op_type == "Transpose":
            return lambda values: values.transpose(attributes["perm"])
        return None

    def finish(self) -> None:
        """Remove the nodes, and what was noted of the weights' types before."""
        nodes = [node for node in self._graph.node if not self._folded.intersection(node.output)]
        gone = self._folded.union(tensor.name for tensor in self._graph.initializer)
        values = [value for value in self._graph.value_info if value.name not in gone]
        for field, left in ((self._graph.node, nodes), (self._graph.value_info, values)):
            del field[:]
            field.extend(left)
