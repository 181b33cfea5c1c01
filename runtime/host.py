"""What this host can run, and which target of a bundle that is."""

from __future__ import annotations

import contextlib
import importlib
import platform
import re
from pathlib import Path

from sdxl_trt.bundle import Host, Manifest, Target, choose_target
from sdxl_trt.bundle.hosts import ON_CPU, ON_CUDA
from sdxl_trt.errors import NoTargetForHost, UsageError
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
    try:
        import onnxruntime
    except ImportError:
        return {}
    return {ON_CPU: onnxruntime.__version__}


def _gpu_flavours() -> dict[str, str]:
    """TensorRT's, as far as they are installed, and onnxruntime where it was built with CUDA."""
    flavours = dict[str, str]()
    for flavour, library in LIBRARIES.items():
        with contextlib.suppress(ImportError, OSError):  # OSError: the bindings are here, their library is not
            flavours[flavour] = str(importlib.import_module(library.module).__version__)
    with contextlib.suppress(ImportError):
        onnxruntime = importlib.import_module("onnxruntime")
        if PROVIDER in onnxruntime.get_available_providers():
            flavours[ON_CUDA] = onnxruntime.__version__
    return flavours


def target_for_host(manifest: Manifest, bundle: Path, device: Device | None = None) -> Target:
    """The best target of a bundle for this host.

    Args:
        manifest: of the bundle.
        bundle: its folder.
        device: where engines shall run; the processor when not given.

    Raises:
        NoTargetForHost: none fits; says for each what differs, and what would help.
    """
    host = this_host(device)
    try:
        return choose_target(manifest, host, bundle)
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
