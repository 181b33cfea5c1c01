"""Which target of a bundle a host can use, and if none, exactly why."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sdxl_trt.bundle.content import Blob
from sdxl_trt.bundle.manifest import Manifest, Target
from sdxl_trt.bundle.presence import not_pulled
from sdxl_trt.errors import NoTargetForHost, NotPulled
from sdxl_trt.gpus import PORTABLE_SMS

ON_CPU, ON_CUDA = GRAPHS = ("onnxruntime", "onnxruntime-cuda")
"""Flavours of onnxruntime, which takes graphs as they are: on the processor, and on NVIDIA's GPUs."""

RTX = "tensorrt-rtx"
"""The flavour of TensorRT's whose engines may be for no compute capability in particular."""


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
    """The best target for a host among those whose files are there: exact SM first, then portable, then onnxruntime.

    Raises:
        NotPulled: the files of those that fit are not in the bundle's folder.
        NoTargetForHost: none fits; lists for each target what differs.
    """
    absent = not_pulled(manifest, bundle)
    obstacles = {target.name: refusal(target, host) or absent.get(target.name) for target in manifest.targets}
    if usable := best_target((target for target in manifest.targets if target.name not in absent), host):
        return usable
    got = "; ".join(f"{name}: {reason}" for name, reason in obstacles.items()) or "no target at all"
    if fitting := best_target(manifest.targets, host):
        raise NotPulled(
            f"what {bundle} has for this host was not pulled",
            got=got,
            expected=f"the files of {fitting.name}",
            fix=f"sdxl-trt ship pull REF -o {bundle}, from where it was pulled before; or build it again",
        )
    raise NoTargetForHost(
        f"nothing in {bundle} runs on this host",
        got=got,
        expected=f"a target for {describe(host)}",
        fix=f"sdxl-trt build … --gpu {'cpu' if host.sm is None else 'NAME'} -o {bundle}",
    )


def best_target(targets: Iterable[Target], host: Host) -> Target | None:
    """The best of those that a host can use; None where it can use none. The first of several that are as good."""
    return min((target for target in targets if refusal(target, host) is None), key=_preference, default=None)


def mapped(manifest: Manifest, *targets: Target) -> dict[str, Blob]:
    """The files, by hash, that a host needs whole, to map them into memory: all but TensorRT's plans.

    Args:
        manifest: of the bundle.
        targets: that the host uses; when not given, all of them.
    """
    graphs = [target for target in targets or manifest.targets if target.flavour in GRAPHS]
    blobs = (*manifest.shared(), *(blob for target in graphs for blob in target.blobs()))
    return {blob.sha256: blob for blob in blobs}


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
    sms = PORTABLE_SMS if target.flavour == RTX and not target.sms else target.sms
    on_gpu = target.flavour != ON_CPU
    if (on_gpu and host.sm is None) or (sms and host.sm not in sms):
        wanted = ", ".join(f"SM {sm}" for sm in sms) or "an NVIDIA GPU"
        return f"built for {wanted}, this host has " + (f"SM {host.sm}" if host.sm else "no NVIDIA GPU")
    return None


def _version_fits(target: Target, version: str) -> bool:
    """Later onnxruntimes read the graphs of earlier ones; a TensorRT plan is for the very version that wrote it."""
    if target.flavour not in GRAPHS:
        return version == target.flavour_version
    return _numbers(version) >= _numbers(target.flavour_version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def describe(host: Host) -> str:
    """A host in words."""
    libraries = ", ".join(f"{name} {version}" for name, version in host.flavours.items()) or "no engine library"
    return f"{host.processor}, {f'SM {host.sm}' if host.sm else 'no NVIDIA GPU'}, {libraries}"
