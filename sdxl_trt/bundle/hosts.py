"""Which target of a bundle a host can use, and if none, exactly why."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sdxl_trt.bundle.manifest import Manifest, Target
from sdxl_trt.errors import NoTargetForHost

ON_CPU, ON_CUDA = GRAPHS = ("onnxruntime", "onnxruntime-cuda")
"""Flavours of onnxruntime, which takes graphs as they are: on the processor, and on NVIDIA's GPUs."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """What decides whether engines run here."""

    processor: str
    """Instruction set (x86_64, aarch64)."""
    flavours: dict[str, str]
    """Versions of the engine libraries that can run here, by flavour; empty text where the version is unknown."""
    sm: int | None
    """Compute capability of the GPU (86 for 8.6); None without one."""


def choose_target(manifest: Manifest, host: Host, bundle: Path) -> Target:
    """The best target for a host: exact SM first, then portable, then onnxruntime.

    Raises:
        NoTargetForHost: none fits; lists for each target what differs.
    """
    reasons = {target.name: refusal(target, host) for target in manifest.targets}
    fitting = [target for target in manifest.targets if reasons[target.name] is None]
    if fitting:
        return min(fitting, key=_preference)
    raise NoTargetForHost(
        f"nothing in {bundle} runs on this host",
        got="; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "no target at all",
        expected=f"a target for {_describe(host)}",
        fix=f"sdxl-trt build … --gpu {'cpu' if host.sm is None else 'NAME'} -o {bundle}",
    )


def _preference(target: Target) -> int:
    if target.flavour in GRAPHS:
        return 2
    return 0 if target.sms else 1


def refusal(target: Target, host: Host) -> str | None:
    """Why a host cannot use a target, or None if it can."""
    if target.processor != host.processor:
        return f"built for a {target.processor} processor, this host is {host.processor}"
    if target.flavour not in host.flavours:
        return f"needs {target.flavour} {target.flavour_version}, which cannot run here"
    version = host.flavours[target.flavour]
    if not _version_fits(target, version):
        return f"built with {target.flavour} {target.flavour_version}, this host has {version}"
    on_gpu = target.flavour != ON_CPU
    if (on_gpu and host.sm is None) or (target.sms and host.sm not in target.sms):
        wanted = ", ".join(f"SM {sm}" for sm in target.sms) or "an NVIDIA GPU"
        return f"built for {wanted}, this host has " + (f"SM {host.sm}" if host.sm else "no NVIDIA GPU")
    return None


def _version_fits(target: Target, version: str) -> bool:
    """Later onnxruntimes read the graphs of earlier ones; a TensorRT plan is for the very version that wrote it."""
    if target.flavour not in GRAPHS:
        return version == target.flavour_version
    return _numbers(version) >= _numbers(target.flavour_version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _describe(host: Host) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in host.flavours.items()) or "no engine library"
    return f"{host.processor}, {f'SM {host.sm}' if host.sm else 'no NVIDIA GPU'}, {libraries}"
