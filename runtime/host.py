"""What this host can run, and which target of a bundle that is."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdxl_trt.bundle import Host, Manifest, Target, choose_target
from sdxl_trt.bundle.hosts import ON_CPU, ON_CUDA
from sdxl_trt.errors import FlavourUnavailable, NoTargetForHost, NotPulled, UsageError
from sdxl_trt.gpus import able_flavours
from sdxl_trt.libraries import require
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.device import Device, HostDevice
from sdxl_trt.runtime.ort_cuda import PROVIDER
from sdxl_trt.runtime.trt import LIBRARIES


def gpu_number(name: str) -> int | None:
    """The GPU that a device's name means, as CUDA counts; None: the processor.

    Raises:
        UsageError: there are no such devices.
    """
    gpu = re.fullmatch(r"cuda(?::(\d{1,3}))?", name)
    if gpu is None and name != "cpu":
        raise UsageError(
            "this device cannot be used", got=repr(name), expected="cpu, cuda, or cuda:1 for the second GPU", fix="cuda"
        )
    return int(gpu[1] or 0) if gpu else None


def open_device(name: str) -> Device:
    """Where engines shall run: 'cpu'; or 'cuda' or 'cuda:1', a GPU as CUDA counts.

    Raises:
        UsageError: another name.
        FlavourUnavailable: there is no such GPU, or what drives it is missing.
        OutOfMemory: there is no room on it, even before a model.
    """
    number = gpu_number(name)
    return HostDevice() if number is None else CudaDevice(number)


def this_host(device: Device | None = None) -> Host:
    """The processor, and the engine libraries that can run here.

    Args:
        device: where engines shall run; the processor when not given.
    """
    if isinstance(device, CudaDevice):
        return Host(processor=platform.machine(), flavours=_gpu_flavours(), sm=device.sm)
    return Host(processor=platform.machine(), flavours=_flavours(), sm=None)


def _flavours() -> dict[str, str]:
    library = _library("onnxruntime")
    return {ON_CPU: str(library.__version__)} if library else {}


def _gpu_flavours() -> dict[str, str]:
    """TensorRT's, as far as they are installed, and onnxruntime where it was built with CUDA."""
    found = {flavour: _library(each.module) for flavour, each in LIBRARIES.items()}
    onnxruntime = _library("onnxruntime")
    if onnxruntime and PROVIDER in onnxruntime.get_available_providers():
        found[ON_CUDA] = onnxruntime
    return {flavour: str(library.__version__) for flavour, library in found.items() if library}


def _library(module: str) -> Any:
    """None where it is not here, or not whole."""
    try:
        return require(module, "run engines")
    except FlavourUnavailable:
        return None


def choose_flavour(sm: int, flavours: Mapping[str, str]) -> str:
    """The flavour of engines for a GPU.

    Args:
        sm: its compute capability.
        flavours: those whose libraries are here.

    Raises:
        FlavourUnavailable: none of them can be run on it.
    """
    able = able_flavours(sm)
    for flavour in able:
        if flavour in flavours:
            return flavour
    extras = " or ".join(f"'sdxl-trt[{extra}]'" for extra in (*able[:-1], "ort-cuda"))
    raise FlavourUnavailable(
        f"no engines can be run on a GPU of SM {sm} here",
        got=f"libraries of {', '.join(flavours) or 'no flavour'}",
        expected=" or ".join(able),
        fix=f"pip install {extras}; for the last one remove onnxruntime first",
    )


def target_for_host(manifest: Manifest, bundle: Path, device: Device | None = None) -> Target:
    """The best target of a bundle for this host.

    Args:
        manifest: of the bundle.
        bundle: its folder.
        device: where engines shall run; the processor when not given.

    Raises:
        NotPulled: the files of those that fit are not here.
        NoTargetForHost: none fits; says for each what differs, and what would help.
    """
    return fitting_target(manifest, bundle, this_host(device))


def fitting_target(manifest: Manifest, bundle: Path, host: Host) -> Target:
    """As `target_for_host`, for a host that is known."""
    try:
        return choose_target(manifest, host, bundle)
    except NotPulled:
        raise
    except NoTargetForHost as error:
        error_fix = _fix(manifest, host) or error.fix
        raise NoTargetForHost(error.what, got=error.got, expected=error.expected, fix=error_fix) from None


def _fix(manifest: Manifest, host: Host) -> str:
    """Better advice than to build again, where there is any."""
    flavours = {target.flavour for target in manifest.targets if target.processor == host.processor}
    if host.sm is not None:
        return ""
    if ON_CPU in flavours and not host.flavours:
        return "pip install 'sdxl-trt[cpu]', which brings the onnxruntime that this bundle needs"
    if flavours and ON_CPU not in flavours:
        return (
            f"--device cuda (device='cuda' in Python) runs {' and '.join(sorted(flavours))} engines on a GPU; "
            "sdxl-trt build … --gpu cpu makes a bundle that runs on the processor"
        )
    return ""
