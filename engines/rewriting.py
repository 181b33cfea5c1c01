"""Graphs changed in place, one kind of node at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np


def replace_nodes(graph: Any, kind: str, stand_ins: Callable[[Any], Iterable[Any]]) -> None:
    """Put other nodes in the place of every node of a kind, in an onnx.GraphProto."""
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        graph.node.extend(stand_ins(node) if node.op_type == kind else [node])


class StandIns:
    """Makes what stands for one node; all names begin with that of its output.

    Args:
        onnx: the module.
        graph: that constants go into.
        output: of the node.
    """

    def __init__(self, onnx: Any, graph: Any, output: str) -> None:
        self._onnx, self._graph, self._output = onnx, graph, output

    def constant(self, name: str, values: Any) -> str:
        """A new initializer's name."""
        name = f"{self._output}.{name}"
        self._graph.initializer.append(self._onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **options: Any) -> Any:
        """A node with one output."""
        return self._onnx.helper.make_node(kind, inputs, [output], name=f"{output}.{kind}", **options)


def attributes_of(onnx: Any, node: Any) -> dict[str, Any]:
    """A node's attributes by name, as Python's values."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
