"""The driver and the GPUs, host memory, and room for files."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdxl_trt.errors import OutputError, SdxlTrtError, UsageError
from sdxl_trt.files import check_writable, nearest_existing
from sdxl_trt.memory import host_memory
from sdxl_trt.paths import bundles_folder, cache_folder

if TYPE_CHECKING:
    from sdxl_trt.bundle import Host

KERNEL_MODULE = Path("/proc/driver/nvidia/version")
"""There while NVIDIA's kernel module is loaded; its first line has the driver's version."""


def driver() -> dict[str, Any]:
    """The driver's version, the CUDA that it is for, and why it cannot be used."""
    from sdxl_trt.runtime.cuda.driver import cuda_version, open_driver

    try:
        cuda, error = cuda_version(open_driver()), None
    except SdxlTrtError as caught:
        cuda, error = None, caught.as_dict()
    return {"version": _kernel_module(), "cuda": cuda, "error": error}


def _kernel_module() -> str | None:
    text = KERNEL_MODULE.read_text(encoding="utf-8") if KERNEL_MODULE.exists() else ""
    version = re.search(r"\b\d{3,}(\.\d+)+\b", text)
    return version[0] if version else None


def gpus() -> tuple[list[dict[str, Any]], dict[str, Host]]:
    """Every GPU that CUDA shows; and what can run on those that can be used, by device."""
    from sdxl_trt.runtime.cuda.driver import gpu_count, open_driver

    rows, hosts = list[dict[str, Any]](), dict[str, "Host"]()
    try:
        count = gpu_count(open_driver())
    except SdxlTrtError:  # `driver` tells it
        count = 0
    for device in (f"cuda:{number}" for number in range(count)):
        try:
            row, hosts[device] = _gpu(device)
        except SdxlTrtError as error:
            row = {"error": error.as_dict()}
        rows.append({"device": device} | row)
    return rows, hosts


def _gpu(name: str) -> tuple[dict[str, Any], Host]:
    """A GPU, opened for a moment."""
    from sdxl_trt.runtime.cuda import CudaDevice
    from sdxl_trt.runtime.host import gpu_number, this_host

    with CudaDevice(gpu_number(name) or 0) as device:
        use, host = device.memory(), this_host(device)
        found = {"name": device.name, "sm": device.sm, "pci": device.pci_bus_id, "free": use.free, "total": use.total}
        known = _catalogued(device.name, device.sm)
    return found | known | {"flavours": host.flavours, "error": None}, host


def _catalogued(name: str, sm: int) -> dict[str, Any]:
    """The GPU's name for --gpu, and what cannot be done with it."""
    from sdxl_trt.gpus import find_gpu, load_gpus

    try:
        gpu = find_gpu(name)
    except UsageError as error:
        alike = next((gpu.key for gpu in load_gpus().values() if gpu.sm == sm), None)
        advice = f"build for one of the same compute capability: --gpu {alike}" if alike else error.fix
        return {"key": None, "limits": [], "unknown": error.as_dict() | {"fix": advice}}
    return {"key": gpu.key, "limits": list(gpu.limits), "unknown": None}


def memory() -> dict[str, Any]:
    """Of the host, in bytes."""
    return dataclasses.asdict(host_memory())


def disk() -> dict[str, dict[str, Any]]:
    """The folders that commands write to when nobody says where, and the bytes that are free there."""
    return {"bundles": _folder(bundles_folder()), "exports": _folder(cache_folder())}


def _folder(path: Path) -> dict[str, Any]:
    error = None
    try:
        check_writable(path / "file")
    except OutputError as caught:
        error = caught.as_dict()
    free = shutil.disk_usage(nearest_existing(path.absolute())).free
    return {"path": str(path), "free": free, "error": error}
