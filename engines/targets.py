"""From the GPUs somebody names to the targets that have to be built."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sdxl_trt.engines.flavours import FLAVOURS, Flavour
from sdxl_trt.errors import UnknownName, UsageError
from sdxl_trt.gpus import CPU, Gpu, able_flavours, find_gpu


@dataclass(frozen=True, kw_only=True)
class TargetRequest:
    """A set of engines to build."""

    flavour: Flavour
    sms: tuple[int, ...]
    """Compute capabilities, ascending; none where nothing is compiled."""
    processor: str
    """Instruction set of the hosts it is for: this host's, as no library here compiles for another."""
    weight_streaming: bool = False
    """Engines of steps are built so that their weights may be streamed."""

    @property
    def name(self) -> str:
        """Of the target in the bundle: tensorrt-rtx-sm86-sm89, tensorrt-sm90, onnxruntime-x86_64."""
        return "-".join([self.flavour.name, *([f"sm{sm}" for sm in self.sms] or [self.processor])])

    def streams(self, graph: str) -> bool:
        """Whether the weights of a graph's engine may be streamed: those of the graph that runs many times."""
        return self.weight_streaming and graph == "step"

    def flags(self, graph: str) -> tuple[str, ...]:
        """Builder flags for a graph's engine, as `Flavour.flags`.

        Streaming excludes that all memory is the caller's, and so that the engine is captured into a CUDA graph.
        """
        if not self.streams(graph):
            return self.flavour.flags
        return (*(flag for flag in self.flavour.flags if flag != "+REQUIRE_USER_ALLOCATION"), "+WEIGHT_STREAMING")


def resolve_targets(
    gpus: Sequence[str], flavour: str | None = None, *, weight_streaming: bool = False
) -> tuple[TargetRequest, ...]:
    """What to build for the named GPUs.

    GPUs that can share engines do: TensorRT for RTX compiles one plan for several compute capabilities, and the plan
    is no larger for it. TensorRT's own engines are one set per compute capability. onnxruntime's are one set for all.

    Args:
        gpus: names from the catalogue, or 'cpu'.
        flavour: for all of them; when not given, onnxruntime for the CPU and each GPU's own default.
        weight_streaming: build steps' engines so that their weights may be streamed.

    Raises:
        UnknownName: a GPU or flavour of that name is not known.
        UsageError: no GPU is named; or the flavour cannot serve one of them, or not with streaming; names what can.
    """
    if not gpus:
        raise UsageError(
            "no target is named", expected="the GPU to build for, or cpu", fix="--gpu NAME, one of `sdxl-trt gpus`"
        )
    if flavour is not None and flavour not in FLAVOURS:
        raise UnknownName("flavour", flavour, FLAVOURS)
    found = [None if name.strip().lower() == CPU else find_gpu(name) for name in gpus]
    chosen = [(_flavour(gpu, flavour), gpu) for gpu in found]
    requests: list[TargetRequest] = []
    for one in dict.fromkeys(flavour for flavour, _ in chosen):
        sms = sorted({gpu.sm for flavour, gpu in chosen if flavour is one and gpu} if one.sms != () else ())
        together = one.sms is not None
        groups = [sms] if together else [[sm] for sm in sms]
        requests += (_request(one, group, weight_streaming=weight_streaming) for group in groups)
    return tuple(requests)


def _request(flavour: Flavour, sms: Iterable[int], *, weight_streaming: bool) -> TargetRequest:
    if weight_streaming and flavour.module == "onnxruntime":
        raise UsageError(
            f"{flavour.name} has no weight streaming",
            got="--weight-streaming",
            expected="tensorrt or tensorrt-rtx",
            fix="leave it out, or build for this GPU with --flavour tensorrt",
        )
    return TargetRequest(
        flavour=flavour, sms=tuple(sms), processor=platform.machine(), weight_streaming=weight_streaming
    )


def _flavour(gpu: Gpu | None, wanted: str | None) -> Flavour:
    """The flavour for a GPU (None: the CPU), which is the one wanted or an error."""
    able = able_flavours(gpu.sm) if gpu else ("onnxruntime",)
    name = wanted or (gpu.default_flavour if gpu else able[0])
    if name not in able:
        where = f"{gpu.name} (SM {gpu.sm})" if gpu else "the CPU"
        raise UsageError(
            f"{name} engines cannot serve {where}",
            got=f"--flavour {name}",
            expected=" or ".join(able) + f" for {where}",
            fix=f"--flavour {able[0]}, or leave --flavour out",
        )
    return FLAVOURS[name]
