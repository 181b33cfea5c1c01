"""A torch module becomes an ONNX graph without one weight in memory."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any, cast

import diffusers
import onnx_ir as ir
import torch
import transformers
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sdxl_trt.errors import CheckpointError, ExportError, SdxlTrtError, ran_out_of_memory
from sdxl_trt.export import modules
from sdxl_trt.export.checkpoint import Component
from sdxl_trt.export.graph import optimise
from sdxl_trt.export.repeated import TRANSLATION, Repeated, Shape, put_back, take_out
from sdxl_trt.spec import GraphSpec

OPSET = 23
"""The first with one Attention node per layer, which every flavour fuses."""

EXAMPLE = {
    "rows": 3,
    "slots": 2,
    "height": 17,
    "width": 23,
    "pixels": 17 * 23,
    "tokens": 11,
    "8*height": 136,
    "8*width": 184,
}
"""Axis sizes of the trace. Odd latents: at even ones diffusers' UNet leaves out the sizes its up blocks need."""

CLIP = {"text_encoder": "CLIPTextModel", "text_encoder_2": "CLIPTextModelWithProjection"}


def trace(spec: GraphSpec, component: Component, precision: str) -> ir.Model:
    """Trace the graph that `spec` describes; initializers have the component's parameter names and no values.

    Args:
        precision: dtype of the network: 'float16' or 'float32' (a VAE that may not run in fp16 gets float32 with
            'float16' attention, see `sdxl_trt.export.modules.HalfAttention`).

    Raises:
        ExportError: torch could not trace it, or fixed a size that must stay free.
        MemoryError: memory was refused.
    """
    with _fake(network_dtype(component, precision)) as fake, _quiet():
        module, prefix = _module(spec.name, component, precision)
        kinds = take_out(module)
        arguments = tuple(torch.zeros(_example(t.shape), dtype=getattr(torch, t.dtype)) for t in spec.inputs)
        try:
            model = _traced(fake, module, arguments, _nested(module, tuple(_free(t.shape) for t in spec.inputs)))
            _name_tensors(model.graph, spec)
            put_back(model, [(kind, _trace_layer(fake, kind)) for kind in kinds])
        except SdxlTrtError:
            raise
        except Exception as error:
            if ran_out_of_memory(error):
                raise
            raise ExportError(
                f"{spec.name} could not be traced", got=f"{type(error).__name__}: {error}", fix="report this model"
            ) from error
    model.graph.name = spec.name
    _name_weights(model.graph, prefix)
    return model


def _traced(fake: FakeTensorMode, module: nn.Module, arguments: tuple[Tensor, ...], free: tuple[Any, ...]) -> ir.Model:
    program = torch.export.export(module, arguments, dynamic_shapes=free, strict=False)
    with fake:
        traced = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            optimize=False,
            verbose=False,
            custom_translation_table=dict(TRANSLATION),
        )
    model = cast(torch.onnx.ONNXProgram, traced).model
    optimise(model)
    return model


def _trace_layer(fake: FakeTensorMode, kind: Repeated) -> ir.Model:
    dtype = torch.get_default_dtype()
    arguments = tuple(torch.zeros(_example(shape), dtype=dtype) for shape in kind.inputs)
    return _traced(fake, kind.module, arguments, tuple(map(_free, kind.inputs)))


def _example(shape: Shape) -> list[int]:
    return [d if isinstance(d, int) else EXAMPLE[d] for d in shape]


def _free(shape: Shape) -> dict[int, Any]:
    """The axes of an input that may have any size."""
    return {i: torch.export.Dim.DYNAMIC for i, d in enumerate(shape) if isinstance(d, str)}


def network_dtype(component: Component, precision: str) -> str:
    """dtype a network's weights have in a graph of `precision`."""
    return "float32" if component.name == "vae" and component.config.get("force_upcast", True) else precision


@contextlib.contextmanager
def _fake(dtype: str) -> Iterator[FakeTensorMode]:
    """Tensors of shapes and dtypes alone, made in `dtype` by default (fake modules cannot be cast afterwards)."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with FakeTensorMode() as fake, torch.no_grad():
            yield fake
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about its own internals and about optional packages; none of it is for our users."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def parameter_shapes(component: Component) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters that the component's config asks for.

    Raises:
        CheckpointError: the config describes no network that can be made.
    """
    try:
        with _fake("float32"), _quiet():
            return {name: tuple(parameter.shape) for name, parameter in _network(component).named_parameters()}
    except Exception as error:
        raise CheckpointError(
            f"{component.name}/config.json describes no network",
            got=f"{type(error).__name__}: {error}",
            fix="take the config.json that belongs to the weights",
        ) from error


def _network(component: Component) -> Any:
    """The component's own torch module, with shapes but no values."""
    if component.name in CLIP:
        # Its constructor would take the dtype the checkpoint was saved in over the one that is wanted here.
        saved_as = ("dtype", "torch_dtype")
        config = transformers.CLIPTextConfig.from_dict({k: v for k, v in component.config.items() if k not in saved_as})
        return getattr(transformers, CLIP[component.name])(config).eval()
    kind = diffusers.UNet2DConditionModel if component.name == "unet" else diffusers.AutoencoderKL
    return kind.from_config(component.config).eval()


def _module(graph: str, component: Component, precision: str) -> tuple[nn.Module, str]:
    """The module to trace, and what its parameters' names start with."""
    network = _network(component)
    if graph == "step":
        return modules.Step(modules.Unet(network)), "unet.model."
    if component.name == "vae" and network_dtype(component, precision) != precision:
        network.set_attn_processor(modules.HalfAttention())
    kinds: dict[str, Callable[[Any], nn.Module]] = {
        "unet": modules.Unet,
        "vae_decoder": modules.VaeDecoder,
        "vae_encoder": modules.VaeEncoder,
    }
    return kinds.get(graph, modules.TextEncoder)(network), "model."


def _nested(module: nn.Module, free: tuple[Any, ...]) -> tuple[Any, ...]:
    """Dynamic shapes in the form of the signature: `Step` takes most of its tensors as *rest."""
    return (*free[:3], free[3:]) if isinstance(module, modules.Step) else free


def _name_tensors(graph: ir.Graph, spec: GraphSpec) -> None:
    """Give inputs, outputs and axes the names of the spec, and check that nothing the spec leaves free was fixed."""
    for values, tensors in ((graph.inputs, spec.inputs), (graph.outputs, spec.outputs)):
        for value, tensor in zip(values, tensors, strict=True):
            shape = value.shape or ()
            fixed = any(isinstance(d, str) and isinstance(got, int) for d, got in zip(tensor.shape, shape, strict=True))
            if fixed or value.dtype is None or value.dtype.numpy().name != tensor.dtype:
                raise ExportError(
                    f"{spec.name}: {tensor.name} came out otherwise than specified",
                    got=f"{value.dtype} {value.shape}",
                    expected=f"{tensor.dtype} {tensor.shape}",
                    fix="report this model",
                )
            value.name = tensor.name
            value.shape = ir.Shape(tensor.shape)


def _name_weights(graph: ir.Graph, prefix: str) -> None:
    for name in list(graph.initializers):
        value = graph.initializers.pop(name)
        value.name = name.removeprefix(prefix)
        graph.initializers[value.name] = value
