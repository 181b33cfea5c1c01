"""One graph becomes a TensorRT plan. `tensorrt` and `tensorrt_rtx` have the same interface: the code is one.

Weights go from the checkpoint's mapped file to the parser by address, and the plan leaves as a stream. Needs
TensorRT 10.13 or later (load_initializer), or TensorRT for RTX 1.7.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from sdxl_trt.engines.flavours import library
from sdxl_trt.engines.hooks import Report, Sink, plan_writer, progress_monitor
from sdxl_trt.engines.source import Source
from sdxl_trt.engines.targets import TargetRequest
from sdxl_trt.errors import BuildError
from sdxl_trt.libraries import error_log
from sdxl_trt.spec import GraphSpec, Profile


def compile_plan(
    request: TargetRequest, source: Source, spec: GraphSpec, profile: Profile, sink: Sink, report: Report
) -> None:
    """Compile a graph and write the plan into `sink`.

    Raises:
        ExportError: the graph or its weights changed since they were exported.
        BuildError: the library refuses the graph, or fails; carries its first error.
        OSError: the sink raised it.
    """
    trt = library(request.flavour)
    log = error_log(trt)  # TensorRT keeps a bare pointer to it, as to the weights: both outlive everything below
    model = source.graph(spec, request.flavour.precision)
    builder = trt.Builder(log)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log)
    what = f"{request.flavour.name} {trt.__version__} cannot build {spec.name} for {request.name}"
    with _explained(what, log, source.weights_bytes(spec.name, request.flavour.precision)):
        _parse(parser, model, source)
        if spec.name.startswith("vae"):
            _allow_unfused_attention(trt, network)
        config = _config(trt, builder, request, spec.name)
        config.add_optimization_profile(_optimization_profile(builder, spec, profile))
        _build(trt, builder, network, config, sink, report)


class _Refused(Exception):
    """TensorRT said no; the message says what it was to take, its log why it did not."""


@contextlib.contextmanager
def _explained(what: str, log: Any, weights: int) -> Iterator[None]:
    try:
        yield
    except _Refused as refused:
        # Errors after the first are its consequences; without a GPU they end in one about a missing driver.
        first = next(iter(log.errors), "no message")
        if tells_of_memory(first):
            raise short_of_memory(what, first, weights) from None
        raise BuildError(
            what,
            got=first,
            expected=str(refused),
            fix="report this model and the message; meanwhile --gpu cpu builds it without TensorRT",
        ) from None


def tells_of_memory(message: str) -> bool:
    """Whether this is how the library, or the C++ or Python below it, ends for want of memory."""
    return any(word in message for word in ("bad_alloc", "OutOfMemory", "MemoryError"))


def short_of_memory(what: str, got: str, weights: int) -> BuildError:
    """The error for a compilation that found too little memory.

    Args:
        what: what failed.
        got: how that showed.
        weights: bytes of the graph's weights.
    """
    return BuildError(
        what,
        got=got,
        expected=f"about {2 * weights / 1e9 + 0.5:.1f} GB of free memory: twice the weights, and the library",
        fix="free memory or take a larger machine and run the same command again: finished engines are kept",
    )


def _network_flags(trt: Any) -> int:
    """Types are those of the graph. TensorRT 11 knows nothing else, and keeps the flag only for old callers."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parse(parser: Any, model: Any, source: Source) -> None:
    """Feed the graph and, by address, its weights to the parser."""
    if not parser.load_model_proto(model.SerializeToString()):
        raise _Refused("an ONNX graph that the parser reads")
    for tensor, (location, offset, length) in source.external(model):
        data = source.weights(location)
        inside = 0 <= offset <= offset + length <= data.size
        # A refused initializer would be looked for in a file of the graph's own choice: stop here.
        if not inside or not parser.load_initializer(tensor.name, data.ctypes.data + offset, length):
            raise _Refused(f"{length} bytes at {offset} in {location} that are the weight {tensor.name}")
    if not parser.parse_model_proto():
        first = parser.get_error(0)
        raise _Refused(f"nodes that the parser knows; it stopped at {first.node_operator()} {first.node_name()!r}")


def _allow_unfused_attention(trt: Any, network: Any) -> None:
    """Let attention become separate products where the library has no fused kernel for it.

    It has none for the one attention of a VAE: a single head, 512 wide in SDXL (fused kernels end at 256). Nowhere else
    is this wanted: unfused, each layer of the UNet would write hundreds of megabytes, so there a build fails instead.
    """
    kind = getattr(trt.LayerType, "ATTENTION_INPUT", None)  # TensorRT before 10.14 has no such layer
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        if layer.type == kind:
            layer.__class__ = trt.IAttentionInputLayer  # get_layer gives the base class
            layer.attention.decomposable = True


def _config(trt: Any, builder: Any, request: TargetRequest, graph: str) -> Any:
    config = builder.create_builder_config()
    set_flags(trt, config, request.flags(graph))
    if request.flavour.sms is not None:
        config.num_compute_capabilities = len(request.sms)
        for index, sm in enumerate(request.sms):
            if not config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{sm}"), index):
                raise _Refused(f"SM {sm} among the compute capabilities it compiles for")
    return config


def set_flags(trt: Any, config: Any, flags: Iterable[str]) -> None:
    """Set and clear builder flags, which are named as in `Flavour.flags`."""
    for flag in flags:
        change = config.set_flag if flag[0] == "+" else config.clear_flag
        change(getattr(trt.BuilderFlag, flag[1:]))


def _optimization_profile(builder: Any, spec: GraphSpec, profile: Profile) -> Any:
    """The shapes the plan takes; every input has at least one dynamic axis."""
    shapes = builder.create_optimization_profile()
    for tensor in spec.inputs:
        ranges = [profile.axis(size, spec.name) if isinstance(size, str) else None for size in tensor.shape]
        smallest, best, largest = (
            tuple(getattr(r, end) if r else size for r, size in zip(ranges, tensor.shape, strict=True))
            for end in ("min", "opt", "max")
        )
        shapes.set_shape(tensor.name, smallest, best, largest)
    return shapes


def _build(trt: Any, builder: Any, network: Any, config: Any, sink: Sink, report: Report) -> None:
    writer = plan_writer(trt, sink)
    config.progress_monitor = progress_monitor(trt, report)
    done = builder.build_serialized_network_to_stream(network, config, writer)
    if writer.error:  # TensorRT itself takes no notice of a write that failed
        raise writer.error
    if not done:
        raise _Refused("a kernel for every layer")
