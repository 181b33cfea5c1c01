"""A plan of either TensorRT as an engine of the runtime.

Source for the calls: NVIDIA's Python API reference of TensorRT 11.4 and TensorRT for RTX 1.7.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Mapping
from typing import Any

from sdxl_trt.bundle import BlobStore, EngineEntry, Host, Target
from sdxl_trt.bundle.checked import CheckedBlob
from sdxl_trt.bundle.hosts import refusal
from sdxl_trt.errors import NoTargetForHost, OutputError
from sdxl_trt.libraries import error_log, require
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.cuda.arenas import ArenaName
from sdxl_trt.runtime.device import Buffer
from sdxl_trt.runtime.engine import AlwaysOpen, check_signature
from sdxl_trt.runtime.trt import rtx
from sdxl_trt.runtime.trt.binding import TrtBinding
from sdxl_trt.runtime.trt.library import LIBRARIES, refused
from sdxl_trt.runtime.trt.reader import stream_reader
from sdxl_trt.runtime.trt.streaming import place_weights
from sdxl_trt.scratch import note_scratch

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32"}


class TrtEngine(AlwaysOpen):
    """One plan of a target, its weights on the GPU. For the device's thread.

    Args:
        store: the bundle's files.
        target: what the plan was built for.
        entry: what the manifest says of it.
        name: of the graph.
        device: where it runs.
        arena: whose memory it works in; no two engines of an arena run at the same time.
        streams: its weights pass through what memory is left (see `streaming`), and it is not recorded.

    Raises:
        FlavourUnavailable: the library is not installed.
        NoTargetForHost: it is of another version, or the GPU another; nothing was read.
        BundleError: the file fails its check, the library refuses the plan, or its tensors are not the manifest's.
        OutOfMemory: the weights do not fit on the GPU.
    """

    deferred = False
    """Its weights come after the plan."""

    def __init__(
        self,
        store: BlobStore,
        target: Target,
        entry: EngineEntry,
        name: str,
        device: CudaDevice,
        arena: ArenaName,
        *,
        streams: bool = False,
    ) -> None:
        library = LIBRARIES[target.flavour]
        self.name, self.device, self.arena, self.streams = name, device, arena, streams
        self.plan = entry.file.sha256
        self.inputs = {tensor.name: tensor for tensor in entry.inputs}
        self.outputs = {tensor.name: tensor for tensor in entry.outputs}
        device.make_current()
        self.trt = trt = require(library.module, f"run {target.flavour} engines")
        _check_host(trt, target, name, device)
        self.log = error_log(trt)  # TensorRT keeps a bare pointer to it: it outlives the engine
        self.cuda_engine = _open(trt, store, entry, self, checks_plans=library.finishes_engines)
        for what, expected, mode in (("inputs", entry.inputs, "INPUT"), ("outputs", entry.outputs, "OUTPUT")):
            signature = _signature(trt, self.cuda_engine, getattr(trt.TensorIOMode, mode))
            check_signature(f"the {what} of {name}", expected, signature)
        if not self.deferred:
            self.settle()
        self._note()
        self.config = config = self.cuda_engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        self.kernels = rtx.KernelCache(trt, config, self.plan, device) if library.finishes_engines else None

    def new_runtime(self) -> Any:
        """What deserialises the plan."""
        return self.trt.Runtime(self.log)

    def settle(self) -> None:
        """Have the weights where they shall be, and memory to work in."""
        trt, cuda_engine, device = self.trt, self.cuda_engine, self.device
        elsewhere = place_weights(cuda_engine, self.name, device, self.log, streams=self.streams)
        self.weights = device.lend(cuda_engine.get_engine_stat(trt.EngineStat.TOTAL_WEIGHTS_SIZE) - elsewhere)
        device.arenas.reserve(self.arena, cuda_engine.device_memory_size_v2)

    def _note(self) -> None:
        """Keep what the library says of its memory for later plans. Where that cannot be, they have estimates."""
        if not self.streams:
            with contextlib.suppress(OutputError, OSError):
                note_scratch(self.plan, self.cuda_engine.device_memory_size_v2)

    def bind(self, buffers: Mapping[str, Buffer]) -> TrtBinding:
        """Put a buffer on the GPU behind every input and output, and run once: later runs compile and allocate nothing.

        Raises:
            UnsupportedSize: shapes that the plan was not built for.
            OutOfMemory: there is too little memory to run in.
            RunError: the library failed.
        """
        return TrtBinding(self, buffers)

    def close(self) -> None:
        """Release the plan and its weights."""
        del self.config, self.kernels, self.weights, self.cuda_engine


def _check_host(trt: Any, target: Target, name: str, device: CudaDevice) -> None:
    host = Host(processor=platform.machine(), flavours={target.flavour: str(trt.__version__)}, sm=device.sm)
    reason = refusal(target, host)
    if reason:
        raise NoTargetForHost(
            f"the engine {name} cannot run on this host",
            got=reason,
            expected=f"an engine for {device.name} (SM {device.sm}) and {target.flavour} {trt.__version__}",
            fix="build the bundle again on this host, or install the version it was built with",
        )


def _open(trt: Any, store: BlobStore, entry: EngineEntry, engine: TrtEngine, *, checks_plans: bool) -> Any:
    """The plan, deserialised."""
    what = f"the engine {engine.name}"
    with CheckedBlob(store, entry.file, what) as plan:
        runtime = engine.new_runtime()
        if checks_plans:
            rtx.check_plan(trt, runtime, plan, what)
        engine.log.errors.clear()
        reader = stream_reader(trt, plan)
        cuda_engine = runtime.deserialize_cuda_engine(reader)
        if reader.error:
            raise reader.error
    if cuda_engine is None:
        fix = "build the bundle again on this host"
        raise refused(f"{what} cannot be loaded", engine.log, engine.device, asked=entry.file.bytes, fix=fix)
    return cuda_engine


def _signature(trt: Any, cuda_engine: Any, mode: Any) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    """Dtypes and shapes of the inputs or outputs."""
    signature = dict[str, tuple[str, tuple[int | None, ...]]]()
    for name in (cuda_engine.get_tensor_name(index) for index in range(cuda_engine.num_io_tensors)):
        if cuda_engine.get_tensor_mode(name) != mode:
            continue
        kind = cuda_engine.get_tensor_dtype(name).name
        dtype = _DTYPES.get(kind, kind)
        if cuda_engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
            dtype += " in host memory"
        signature[name] = dtype, tuple(size if size >= 0 else None for size in cuda_engine.get_tensor_shape(name))
    return signature
