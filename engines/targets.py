"""From the GPUs somebody names to the targets that have to be built."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sdxl_trt.engines.flavours import FLAVOURS, Flavour
from sdxl_trt.errors import UnknownName, UsageError
from sdxl_trt.gpus import CPU, PORTABLE, PORTABLE_SMS, able_flavours, find_gpu
from sdxl_trt.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class TargetRequest:
    """A set of engines to build."""

    flavour: Flavour
    sms: tuple[int, ...]
    """Compute capabilities, ascending; none where nothing is compiled, and for portable engines."""
    processor: str
    """Instruction set of the hosts it is for: this host's, as no library here compiles for another."""
    weight_streaming: bool = False
    """Engines of steps are built so that their weights may be streamed."""

    @property
    def name(self) -> str:
        """Of the target in the bundle: tensorrt-rtx-sm86-sm89, tensorrt-rtx-portable, onnxruntime-x86_64."""
        without = PORTABLE if self.flavour.sms else self.processor
        return "-".join([self.flavour.name, *([f"sm{sm}" for sm in self.sms] or [without])])

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
    is no larger for it (Turing has its own: what suits it slows down others). TensorRT's own engines are one set per
    compute capability. onnxruntime's are one set for all. Portable engines are a target of their own: a host prefers
    those for its own compute capability.

    Args:
        gpus: names from the catalogue, 'cpu', or 'portable'.
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
    chosen = [_choose(name, flavour) for name in gpus]
    requests: list[TargetRequest] = []
    for one in dict.fromkeys(flavour for flavour, _ in chosen):
        groups = _groups({sm for flavour, sm in chosen if flavour is one}, together=one.sms is not None)
        requests += (_request(one, group, weight_streaming=weight_streaming) for group in groups)
    return tuple(requests)


def _groups(sms: set[int | None], *, together: bool) -> list[list[int]]:
    """Compute capabilities by set of engines; None, which is none in particular, is a set without any."""
    named = sorted(sm for sm in sms if sm is not None)
    shared = [sm for sm in named if together and sm in PORTABLE_SMS]
    alone = [[sm] for sm in named if sm not in shared]
    return [*alone, *([shared] if shared else []), *([[]] if None in sms else [])]


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


def _choose(name: str, wanted: str | None) -> tuple[Flavour, int | None]:
    """The flavour for the name of a GPU, which is the one wanted or an error, and the SM to compile for, if any."""
    spelled = name.strip().lower()
    if spelled == CPU:
        return _able(("onnxruntime",), wanted, "the CPU"), None
    if spelled == PORTABLE:
        return _able(("tensorrt-rtx",), wanted, "GPUs that are not named"), None
    gpu = find_gpu(name)
    flavour = _able(able_flavours(gpu.sm), wanted or gpu.default_flavour, f"{gpu.name} (SM {gpu.sm})")
    return flavour, None if flavour.sms == () else gpu.sm


def _able(able: Sequence[str], wanted: str | None, where: str) -> Flavour:
    name = wanted or able[0]
    if name not in able:
        raise UsageError(
            f"{name} engines cannot serve {where}",
            got=f"--flavour {name}",
            expected=" or ".join(able) + f" for {where}",
            fix=f"--flavour {able[0]}, or leave --flavour out",
        )
    return FLAVOURS[name]


def check_vae(requests: Iterable[TargetRequest], model: ModelSpec) -> None:
    """Refuse at once what TensorRT for RTX would only refuse after the minutes that a step's engine takes.

    Raises:
        UsageError: engines for Turing, of a model whose VAE must run in float32.
    """
    if model.vae.force_upcast and any(
        request.flavour.name == "tensorrt-rtx" and 75 in request.sms for request in requests
    ):
        raise UsageError(
            "TensorRT for RTX cannot build this model's VAE for SM 7.5",
            got="a VAE that must run in float32 (force_upcast), whose matrix products it does not build for Turing",
            expected="a VAE that runs in float16, as madebyollin/sdxl-vae-fp16-fix does",
            fix='--vae FOLDER, of one whose config.json has "force_upcast": false; or --flavour onnxruntime-cuda',
        )
