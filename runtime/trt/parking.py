"""Engines of TensorRT for RTX whose weights come and go: the rest stays, so no plan is parsed and no kernel read again.

Source: Runtime.defer_weights_loading, ICudaEngine.load_weights_async and unload_weights of TensorRT for RTX 1.7, which
keep an engine "deserialized with deferred weight loading" usable. TensorRT has none of them. API-checked; not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sdxl_trt.bundle import BlobStore, EngineEntry, Target
from sdxl_trt.bundle.checked import CheckedBlob
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.cuda.arenas import ArenaName
from sdxl_trt.runtime.trt.engine import TrtEngine
from sdxl_trt.runtime.trt.library import refused
from sdxl_trt.runtime.trt.reader import stream_reader


class ParkingEngine(TrtEngine):
    """An engine whose `close` leaves it without weights, until `load`.

    Args:
        store, target, entry, name, device, arena: as of `TrtEngine`.
    """

    deferred = True

    def __init__(
        self, store: BlobStore, target: Target, entry: EngineEntry, name: str, device: CudaDevice, arena: ArenaName
    ) -> None:
        self._store, self._plan = store, entry.file
        super().__init__(store, target, entry, name, device, arena)

    def new_runtime(self) -> Any:
        """What deserialises the plan, and leaves the weights out."""
        runtime = super().new_runtime()
        runtime.defer_weights_loading = True
        return runtime

    def load(self) -> None:
        """Bring the weights to the GPU.

        Raises:
            BundleError: the file has changed since it was checked.
            OutOfMemory: they do not fit.
        """
        what = f"the engine {self.name}"
        self.device.make_current()
        self.log.errors.clear()
        with CheckedBlob(self._store, self._plan, what) as plan:
            reader, stream, cuda_engine = stream_reader(self.trt, plan), self.device.stream(), self.cuda_engine
            done = cuda_engine.load_weights_async(reader, stream.handle)
            self.device.wait_idle()  # runs come on other streams
        if reader.error:
            raise reader.error
        if not done:
            fix = "build the bundle again on this host"
            raise refused(f"{what} cannot load its weights", self.log, self.device, asked=self._plan.bytes, fix=fix)
        self.settle()

    def close(self) -> None:
        """Release the weights. Nothing runs, and no binding is left.

        Raises:
            RunError: the library keeps them.
        """
        self.device.make_current()
        self.log.errors.clear()
        del self.weights
        cuda_engine = self.cuda_engine
        if not cuda_engine.unload_weights():
            what = f"the engine {self.name} cannot release its weights"
            raise refused(what, self.log, self.device, fix="load the pipeline again")


class Parked:
    """Opens an engine, and from the second time on has it load its weights.

    Args:
        open_engine: opens it, without weights.
    """

    def __init__(self, open_engine: Callable[[], ParkingEngine]) -> None:
        self._open_engine = open_engine
        self._engine: ParkingEngine | None = None

    def __call__(self) -> ParkingEngine:
        """The engine with its weights.

        Raises:
            SdxlTrtError: as of `TrtEngine` and `load`.
        """
        if self._engine is None:
            self._engine = self._open_engine()
        self._engine.load()
        return self._engine
