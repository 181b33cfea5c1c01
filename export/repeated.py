"""Layers that a network repeats are traced once each.

SDXL's UNet has 70 transformer blocks of two kinds, its second text encoder 32 equal layers. Tracing is what an export's
time goes into, so each such layer is replaced by a stand-in before the network is traced, one layer of each kind is
traced by itself, and its graph is put in the place of every stand-in of that kind.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import onnxscript
import torch
from diffusers.models.attention import BasicTransformerBlock
from onnx_ir.passes.common import InlinePass
from onnxscript import FLOAT, script
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

DOMAIN = "sdxl_trt"

Shape = tuple[int | str, ...]

_OPSET = onnxscript.values.Opset(DOMAIN, 1)


@torch.library.custom_op("sdxl_trt::layer", mutates_args=())
def stand_in(hidden: Tensor, context: Tensor, number: int) -> Tensor:
    """A repeated layer in a traced program: [rows, tokens, C], text [rows, S, D] → [rows, tokens, C].

    A layer that reads no text gets its first tensor twice.
    """
    raise NotImplementedError("exists to be traced")


@stand_in.register_fake
def _(hidden: Tensor, context: Tensor, number: int) -> Tensor:  # noqa: ARG001  shapes depend on `hidden` alone
    return torch.empty_like(hidden)


def _node(hidden: FLOAT, context: FLOAT, number: int) -> FLOAT:
    return _OPSET.Layer(hidden, context, number=number)


TRANSLATION: dict[Any, Any] = {torch.ops.sdxl_trt.layer.default: script(_OPSET, trace_only=True)(_node)}
"""For torch.onnx.export: stand-ins become nodes `Layer`, to be replaced by `put_back`."""


class _StandIn(nn.Module):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, hidden: Tensor, *_: Any, encoder_hidden_states: Tensor | None = None, **__: Any) -> Tensor:
        return stand_in(hidden, hidden if encoder_hidden_states is None else encoder_hidden_states, self.number)


class _Layer(nn.Module):
    """A repeated layer by itself, called as its network calls it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: Tensor, context: Tensor | None = None) -> Tensor:
        if isinstance(self.layer, CLIPEncoderLayer):
            return self.layer(hidden, None, is_causal=True)
        return self.layer(hidden, encoder_hidden_states=context)


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """The layers of one kind."""

    module: nn.Module
    """One of them, to be traced: hidden [rows, tokens, C], and perhaps text [rows, S, D] → hidden."""
    inputs: tuple[Shape, ...]
    """Their shapes; axes that are named may have any size."""
    names: dict[int, str] = dataclasses.field(default_factory=dict)
    """Of all of them, in the module they were taken from, by their number."""


def take_out(module: nn.Module) -> list[Repeated]:
    """Replace the repeated layers of `module` by stand-ins; returns them by kind."""
    kinds: dict[str, Repeated] = {}
    layers = [(n, m) for n, m in module.named_modules() if isinstance(m, BasicTransformerBlock | CLIPEncoderLayer)]
    for number, (name, layer) in enumerate(layers):
        kind = kinds.setdefault(_kind(layer), _repeated(layer))
        kind.names[number] = name
        parent, _, own = name.rpartition(".")
        setattr(module.get_submodule(parent), own, _StandIn(number))
    return list(kinds.values())


def _repeated(layer: Any) -> Repeated:
    module = _Layer(layer)
    if isinstance(layer, CLIPEncoderLayer):
        tokens = layer.self_attn.config.max_position_embeddings
        return Repeated(module=module, inputs=(("rows", tokens, layer.embed_dim),))
    inputs: tuple[Shape, ...] = (("rows", "pixels", layer.dim),)
    if layer.attn2 is not None:
        inputs += (("rows", "tokens", layer.attn2.cross_attention_dim),)
    return Repeated(module=module, inputs=inputs)


def _kind(layer: nn.Module) -> str:
    """Equal for layers that compute the same but for their weights: their parts, shapes and plain attributes."""
    plain = (bool, int, float, str, tuple, type(None))
    return repr(
        [
            (
                name,
                type(part).__name__,
                {n: v for n, v in vars(part).items() if isinstance(v, plain) and n[0] != "_"},
                {n: tuple(p.shape) for n, p in part.named_parameters(recurse=False)},
            )
            for name, part in layer.named_modules()
        ]
    )


def put_back(model: ir.Model, kinds: list[tuple[Repeated, ir.Model]]) -> None:
    """Replace every stand-in by the graph of its kind, with its own weights.

    Args:
        model: has nodes `Layer`.
        kinds: what `take_out` gave, each with the graph of its module, whose weights are initializers without values.
    """
    for index, (kind, layer) in enumerate(kinds):
        weights = [v for v in layer.graph.initializers.values() if v.const_value is None]
        _make_function(model, layer, f"Layer{index}", weights)
        for node in [n for n in model.graph if n.domain == DOMAIN and n.op_type == "Layer"]:
            name = kind.names.get(node.attributes["number"].as_int())
            if name is not None:
                inputs = node.inputs[: len(kind.inputs)]
                _call(
                    model.graph,
                    node,
                    f"Layer{index}",
                    [*inputs, *(_weight(model.graph, name, weight) for weight in weights)],
                )
    InlinePass()(model)
    model.opset_imports.pop(DOMAIN, None)


def _make_function(model: ir.Model, layer: ir.Model, name: str, weights: list[ir.Value]) -> None:
    graph = layer.graph
    for value in list(graph.initializers.values()):
        del graph.initializers[value.name or ""]
        if value.const_value is not None:  # functions have no initializers
            constant = ir.node("Constant", [], {"value": value.const_value}, outputs=[value])
            graph.insert_before(graph[0], constant)
    graph.inputs.extend(weights)
    function = ir.Function(DOMAIN, name, graph=graph, attributes=[])
    model.functions[function.identifier()] = function


def _call(graph: ir.Graph, node: ir.Node, function: str, inputs: list[ir.Value | None]) -> None:
    call = ir.Node(DOMAIN, function, inputs, num_outputs=1, name=node.name)
    output, new = node.outputs[0], call.outputs[0]
    new.name, new.type, new.shape = output.name, output.type, output.shape
    graph.insert_before(node, call)
    output.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _weight(graph: ir.Graph, layer: str, inside: ir.Value) -> ir.Value:
    """The weight of one layer that `inside` stands for."""
    name = (inside.name or "").removeprefix("layer.")
    value = ir.Value(name=f"{layer}.{name}", type=inside.type, shape=inside.shape)
    graph.initializers[value.name or ""] = value
    return value
