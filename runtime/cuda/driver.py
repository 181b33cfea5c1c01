"""The CUDA driver: found, old enough, and every status it returns turned into one clear error.

Source for the calls' meaning: NVIDIA's CUDA Driver API reference, version 13.
"""

from __future__ import annotations

from typing import Any

from sdxl_trt.errors import FlavourUnavailable, GpuLost, OutOfMemory, RunError, SdxlTrtError
from sdxl_trt.libraries import require

OLDEST = 13000
"""Version of CUDA that a driver must be for, as the driver counts: cuda-python and the engine libraries need 13."""

_INSTALL = "install NVIDIA's driver 580 or later; in a container, start it with --gpus all"

_UNAVAILABLE = {
    "CUDA_ERROR_NO_DEVICE": ("an NVIDIA GPU that this process may use", "look at nvidia-smi and CUDA_VISIBLE_DEVICES"),
    "CUDA_ERROR_INVALID_DEVICE": ("the number of a GPU that is here", "look at nvidia-smi and CUDA_VISIBLE_DEVICES"),
    "CUDA_ERROR_DEVICE_UNAVAILABLE": (
        "a GPU that no other process holds for itself alone",
        "end the process that nvidia-smi shows, or share the GPU: nvidia-smi -c DEFAULT",
    ),
    "CUDA_ERROR_STUB_LIBRARY": ("NVIDIA's driver, not the library that programs are linked with", _INSTALL),
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": ("kernel module and driver library of one version", "restart the host"),
    "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE": ("a driver that supports this GPU", _INSTALL),
}
"""What keeps a GPU from being used at all: what is expected instead, and what helps."""

_LOST = {
    "CUDA_ERROR_DEINITIALIZED",
    "CUDA_ERROR_CONTEXT_IS_DESTROYED",
    "CUDA_ERROR_ECC_UNCORRECTABLE",
    "CUDA_ERROR_NVLINK_UNCORRECTABLE",
    "CUDA_ERROR_CONTAINED",
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION",
    "CUDA_ERROR_MISALIGNED_ADDRESS",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE",
    "CUDA_ERROR_INVALID_PC",
    "CUDA_ERROR_HARDWARE_STACK_ERROR",
    "CUDA_ERROR_ASSERT",
    "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA_ERROR_LAUNCH_TIMEOUT",
    "CUDA_ERROR_MPS_CLIENT_TERMINATED",
    "CUDA_ERROR_UNKNOWN",
}
"""After these the context, and with it every later call of this process, is of no use."""


def open_driver(functions: Any = None) -> Any:
    """Start the driver.

    Args:
        functions: what has the driver's functions; the module cuda.bindings.driver when not given.

    Returns:
        The functions.

    Raises:
        FlavourUnavailable: cuda-python or the driver is missing, there is no GPU, or the driver is too old.
    """
    cu = require("cuda.bindings.driver", "use a GPU") if functions is None else functions
    try:
        check(cu, cu.cuInit(0), "start the CUDA driver")
        version = driver_version(cu)
    except RuntimeError as error:  # cuda-python's own, where the driver's library or a function in it is missing
        raise FlavourUnavailable(
            "there is no NVIDIA driver on this host that can be used",
            got=str(error),
            expected=f"a driver for CUDA {_version(OLDEST)} or later",
            fix=_INSTALL,
        ) from error
    if version < OLDEST:
        raise FlavourUnavailable(
            "the NVIDIA driver is too old",
            got=f"a driver for CUDA {_version(version)}",
            expected=f"a driver for CUDA {_version(OLDEST)} or later",
            fix=_INSTALL,
        )
    return cu


def cuda_version(cu: Any) -> str:
    """The version of CUDA that a started driver is for, as 13.0."""
    return _version(driver_version(cu))


def gpu_count(cu: Any) -> int:
    """How many GPUs a started driver shows to this process; CUDA_VISIBLE_DEVICES hides others."""
    return int(check(cu, cu.cuDeviceGetCount(), "count the GPUs"))


def driver_version(cu: Any) -> int:
    """The version of CUDA that a started driver is for, as the driver counts: 13000."""
    return int(check(cu, cu.cuDriverGetVersion(), "ask for the CUDA driver's version"))


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def check(cu: Any, result: tuple[Any, ...], doing: str, *, asked: int = 0) -> Any:
    """What a call of the driver returned besides its status: nothing, a value, or a tuple of values.

    Args:
        cu: the driver's functions.
        result: as the call returned it, the status first.
        doing: what the call was to do, as the end of "cannot ...".
        asked: bytes of memory that it was to get.

    Raises:
        OutOfMemory: the GPU's memory is full; says what was asked for and what is free.
        FlavourUnavailable: the GPU cannot be used by this process.
        GpuLost: it failed, and nothing more can be done with it in this process.
        RunError: any other status than success.
    """
    status, *values = result
    if int(status):
        raise failure(cu, status, doing, asked)
    return values[0] if len(values) == 1 else tuple(values) or None


def failure(cu: Any, status: Any, doing: str, asked: int = 0) -> SdxlTrtError:
    """The error for a status; arguments as in `check`."""
    name = str(getattr(status, "name", status))
    got = f"{name}: {_described(cu, status)}"
    if name == "CUDA_ERROR_OUT_OF_MEMORY":
        return _out_of_memory(cu, doing, asked)
    if name in _UNAVAILABLE:
        expected, fix = _UNAVAILABLE[name]
        return FlavourUnavailable(f"cannot {doing}", got=got, expected=expected, fix=fix)
    if name in _LOST:
        return GpuLost(
            f"the GPU failed: cannot {doing}",
            got=got,
            expected="a GPU that goes on answering",
            fix="start this process again; if it happens again, look for 'Xid' in the kernel's log (dmesg)",
        )
    return RunError(f"the CUDA driver cannot {doing}", got=got, fix="report this message")


def _out_of_memory(cu: Any, doing: str, asked: int) -> OutOfMemory:
    status, free, total = cu.cuMemGetInfo()
    state = "" if int(status) else f"{free / 1e9:.2f} of {total / 1e9:.2f} GB free"
    return OutOfMemory(
        f"the GPU has too little memory: cannot {doing}",
        got=state,
        expected=f"{asked / 1e9:.2f} GB free" if asked else "",
        fix="a smaller size or batch; or end other processes on the GPU (nvidia-smi shows them)",
    )


def _described(cu: Any, status: Any) -> str:
    unknown, text = cu.cuGetErrorString(status)
    return "" if int(unknown) else bytes(text).decode()
