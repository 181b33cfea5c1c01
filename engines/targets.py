"""From the GPUs somebody names to the targets that have to be built."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sdxl_trt.engines.flavours import FLAVOURS, Flavour
from sdxl_trt.errors import UnknownName, UsageError
from sdxl_trt.gpus import CPU, RTX_SMS, Gpu, find_gpu


@dataclass(frozen=True, kw_only=True)
class TargetRequest:
    """A set of engines to build."""

    flavour: Flavour
    sms: tuple[int, ...]
    """Compute capabilities, ascending; none where nothing is compiled."""
    processor: str
    """Instruction set of the hosts it is for: this host's, as no library here compiles for another."""

    @property
    def name(self) -> str:
        """Of the target in the bundle: tensorrt-rtx-sm86-sm89, tensorrt-sm90, onnxruntime-x86_64."""
        return "-".join([self.flavour.name, *([f"sm{sm}" for sm in self.sms] or [self.processor])])


def resolve_targets(gpus: Sequence[str], flavour: str | None = None) -> tuple[TargetRequest, ...]:
    """What to build for the named GPUs.

    GPUs that can share engines do: TensorRT for RTX compiles one plan for several compute capabilities, and the plan
    is no larger for it. TensorRT's own engines are one set per compute capability. onnxruntime's are one set for all.

    Args:
        gpus: names from the catalogue, or 'cpu'.
        flavour: for all of them; when not given, onnxruntime for the CPU and each GPU's own default.

    Raises:
        UnknownName: a GPU or flavour of that name is not known.
        UsageError: no GPU is named, or the flavour cannot serve one of them; names those that can.
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
        requests += (_request(one, group) for group in ([sms] if together else [[sm] for sm in sms]))
    return tuple(requests)


def _request(flavour: Flavour, sms: Iterable[int]) -> TargetRequest:
    return TargetRequest(flavour=flavour, sms=tuple(sms), processor=platform.machine())


def _flavour(gpu: Gpu | None, wanted: str | None) -> Flavour:
    """The flavour for a GPU (None: the CPU), which is the one wanted or an error."""
    able = _able(gpu)
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


def _able(gpu: Gpu | None) -> tuple[str, ...]:
    if gpu is None:
        return ("onnxruntime",)
    compiled = ("tensorrt", "tensorrt-rtx") if gpu.sm in RTX_SMS else ("tensorrt",)
    return (*compiled, "onnxruntime-cuda")
