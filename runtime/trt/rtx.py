"""What TensorRT for RTX has of its own: it compiles an engine's kernels for the GPU at hand when they are first needed.

They are compiled for the very shapes (EAGER) while an engine is bound, so never in a step, and kept in a file: NVIDIA
reports 31.9 s for a first start and 1.95 s for the next.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from sdxl_trt.bundle.checked import CheckedBlob
from sdxl_trt.errors import BundleError, OutputError
from sdxl_trt.files import atomic_write, sha256_json
from sdxl_trt.paths import cache_folder
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.trust import kept_safely

MOST_FILES = 64
"""Files of kernels that are kept, the newest."""


def check_plan(trt: Any, runtime: Any, plan: CheckedBlob, what: str) -> None:
    """Ask the library whether it can use a plan, by its header.

    Raises:
        BundleError: it cannot; carries its reasons.
    """
    validity, reasons = runtime.get_engine_validity(plan.read(runtime.engine_header_size))
    plan.position = 0
    if validity != trt.EngineValidity.INVALID:
        return
    names = [name for name, member in trt.EngineInvalidityDiagnostics.__members__.items() if int(member) & int(reasons)]
    raise BundleError(
        f"{what} cannot be used by TensorRT for RTX {trt.__version__} on this GPU",
        got=", ".join(names) or "no reason",
        expected="a plan for this version, GPU and driver",
        fix="update the NVIDIA driver if it is the driver; else build the bundle again for this GPU",
    )


class KernelCache:
    """Kernels of one engine on this host's GPU, in a file, which is read here and written by `save`.

    The library itself checks that a file is of the same version, GPU and driver, and takes none that is not. On a host
    with keys, one that other users could write is not read.

    Args:
        trt: the library's module.
        config: an IRuntimeConfig, which is told to use this cache.
        plan: SHA-256 of the engine's plan.
        device: where it runs.
    """

    def __init__(self, trt: Any, config: Any, plan: str, device: CudaDevice) -> None:
        key = [trt.__version__, plan, device.name, device.sm, device.driver_version]
        self._file = cache_folder() / "kernels" / sha256_json(key)[:32]
        self._cache = cache = config.create_runtime_cache()
        self._stored = b""
        with contextlib.suppress(OSError):  # there is none yet, or it cannot be read: kernels are compiled again
            stored = self._file.read_bytes()
            if kept_safely(self._file) and cache.deserialize(stored):
                self._stored = stored
        config.set_runtime_cache(cache)
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER

    def save(self) -> None:
        """Write the file if there are other kernels than in it. Where that cannot be, they are compiled again."""
        cache = self._cache
        kernels = bytes(cache.serialize())
        if kernels == self._stored:
            return
        with contextlib.suppress(OutputError, OSError):
            with atomic_write(self._file) as file:
                file.write(kernels)
            self._stored = kernels
            _keep_newest(self._file.parent)


def _keep_newest(folder: Path) -> None:
    for oldest in sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns)[:-MOST_FILES]:
        oldest.unlink()


def capturable(context: Any, stream: int) -> bool:
    """Whether an execution context may be recorded: not if the engine allocates memory while it runs."""
    return bool(context.is_stream_capturable(stream))
