"""Shapes of every tensor of an exported graph at given axes, without its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import ExportError
from sdxl_trt.libraries import require
from sdxl_trt.spec import LATENT_SCALE

_PIXELS = f"{LATENT_SCALE}*"


@dataclass(frozen=True)
class Tensor:
    """Shape and dtype of a value."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def elements(self) -> int:
        """How many there are."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        return self.elements * self.dtype.itemsize


def propagate(model: Any, axes: Mapping[str, int]) -> dict[str, Tensor]:
    """Every tensor of a graph by name, inputs and initializers too.

    Sizes that the graph computes from its inputs' shapes are computed here as it does.

    Args:
        model: onnx.ModelProto whose inputs name their axes as `sdxl_trt.spec.graphs` does; stays as it is.
        axes: sizes by name; height and width in latent elements.

    Raises:
        ExportError: the graph does not take these sizes, or some size depends on values.
    """
    onnx = require("onnx", "read an export")
    model = _prepared(onnx, model, axes)
    values = _own_integers(onnx, model)
    while True:
        try:
            inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        except onnx.shape_inference.InferenceError as error:
            raise _unknown(model, axes, str(error)) from error
        tensors = _tensors(onnx, inferred)
        if not _fold(onnx, model, tensors, values):
            break
    if missing := [o for node in model.graph.node for o in node.output if o and o not in tensors]:
        raise _unknown(model, axes, f"no size of {', '.join(missing[:5])}")
    return tensors


def _unknown(model: Any, axes: Mapping[str, int], got: str) -> ExportError:
    sizes = ", ".join(f"{name} {size}" for name, size in axes.items())
    return ExportError(
        f"the tensors of {model.graph.name} cannot be sized at {sizes}", got=got[:500], fix="report this model"
    )


def _prepared(onnx: Any, model: Any, axes: Mapping[str, int]) -> Any:
    """A copy with the axes' sizes in its inputs, and without the sizes that were stated of its outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in copy.graph.input:
        for dimension in value.type.tensor_type.shape.dim:
            if name := dimension.dim_param:
                scale = LATENT_SCALE if name.startswith(_PIXELS) else 1
                dimension.dim_value = axes[name.removeprefix(_PIXELS)] * scale
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    for node in copy.graph.node:
        if node.op_type == "GroupNormalization":  # onnx gives it no shape, but it keeps its input's
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
    return copy


def _tensors(onnx: Any, graph: Any) -> dict[str, Tensor]:
    """What is fully known."""
    dtype_of = onnx.helper.tensor_dtype_to_np_dtype
    tensors = {t.name: Tensor(tuple(t.dims), dtype_of(t.data_type)) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            tensors[value.name] = Tensor(tuple(d.dim_value for d in kind.shape.dim), dtype_of(kind.elem_type))
    return tensors


def _own_integers(onnx: Any, model: Any) -> dict[str, NDArray[Any]]:
    """Initializers of whole numbers that are in the graph itself."""
    own = (t for t in model.graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL)
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in own}
    return {name: array for name, array in arrays.items() if np.issubdtype(array.dtype, np.integer)}


def _fold(onnx: Any, model: Any, tensors: Mapping[str, Tensor], values: dict[str, NDArray[Any]]) -> bool:
    """Compute what depends on shapes alone; true if anything new came of it.

    onnx's own propagation of values stops at some operators, at division for one.
    """
    graph, found = model.graph, False
    for node in graph.node:
        if node.output[0] in values:
            continue
        array = _evaluate(node, tensors, values)
        if array is None:
            continue
        values[node.output[0]] = array
        if node.op_type != "Constant":
            found = True
            node.CopyFrom(_constant(onnx, node.output[0], array))
    return found


def _constant(onnx: Any, name: str, array: NDArray[Any]) -> Any:
    return onnx.helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(array))


def _evaluate(node: Any, tensors: Mapping[str, Tensor], values: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
    """The node's output where it is whole numbers that follow from shapes and constants."""
    if node.op_type == "Shape":
        if node.input[0] not in tensors:
            return None
        inputs = [np.broadcast_to(np.int8(0), tensors[node.input[0]].shape)]
    elif len(node.output) > 1 or not all(name in values for name in node.input):
        return None
    else:
        inputs = [values[name] for name in node.input]
    reference = require("onnx.reference", "read an export")
    (array,) = reference.ReferenceEvaluator(node).run(None, dict(zip(node.input, inputs, strict=True)))
    return np.asarray(array) if np.issubdtype(np.asarray(array).dtype, np.integer) else None
