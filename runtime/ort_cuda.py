"""Engines of the `onnxruntime-cuda` flavour, for where TensorRT is missing. API-checked; not measured.

onnxruntime records by itself: wrapping its runs in a recording of one's own is reported to fail (microsoft/onnxruntime,
pull request 32081). So each binding has a `gpu_graph_id`, is recorded by its first run, and counts as not capturable.
A session has one stream for its life; events put its runs in the order of the stream that they are enqueued on.

onnxruntime 1.31 has a call that releases a recording, and documents that providers without support do nothing; that
the CUDA provider has support is not known. So recordings are released when their binding goes, and an engine makes a
bounded number of them all the same: shapes that come later run unrecorded (graph id −1, kCudaGraphAnnotationSkip in
onnxruntime's cuda_graph.h), which gives the same and costs a launch for each kernel.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdxl_trt.bundle import BlobStore, EngineEntry
from sdxl_trt.errors import FlavourUnavailable
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.device import Buffer, Stream
from sdxl_trt.runtime.ort import OrtBinding, OrtEngine, open_session

PROVIDER = "CUDAExecutionProvider"

RECORDINGS = 64
"""That an engine makes in its life: a few sizes with all their numbers of rows, several times over."""
_UNRECORDED = -1


class CudaOrtEngine(OrtEngine):
    """One graph in an onnxruntime session on a GPU.

    Args:
        store, entry, name: as for `OrtEngine`.
        device: where it runs.

    Raises:
        FlavourUnavailable: this onnxruntime has no CUDA, or cannot load what it needs for it.
        BundleError: as for `OrtEngine`.
    """

    def __init__(self, store: BlobStore, entry: EngineEntry, name: str, device: CudaDevice) -> None:
        self.device = device
        self.stream = device.stream()
        self._numbers = itertools.count(1)
        self._weights = device.lend(sum(weights.bytes for weights in entry.weights))
        device.make_current()
        super().__init__(store, entry, name)

    def _open(self, path: Path, threads: int | None, *, packed: bool) -> Any:
        import onnxruntime

        if PROVIDER in onnxruntime.get_available_providers():
            session = open_session(path, self.name, threads, packed=packed, providers=[(PROVIDER, self._options())])
            if PROVIDER in session.get_providers():  # else it has turned to the CPU, with no more than a warning
                return session
        raise FlavourUnavailable(
            f"onnxruntime {onnxruntime.__version__} cannot use the GPU",
            got=f"providers {', '.join(onnxruntime.get_available_providers())}",
            expected=f"{PROVIDER}, with CUDA 13 and cuDNN 9 to be found",
            fix="pip uninstall onnxruntime; pip install --force-reinstall 'sdxl-trt[ort-cuda]' "
            "(onnxruntime and onnxruntime-gpu overwrite each other)",
        )

    def _options(self) -> dict[str, str]:
        return {
            "device_id": str(self.device.ordinal),
            "user_compute_stream": str(self.stream.handle),
            "enable_cuda_graph": "1",
            "use_tf32": "0",  # it rounds the operands of float32 products to 10 bits, and the state is float32
        }

    def new_recording(self) -> int:
        """The id of one more recording; −1 where there are enough."""
        number = next(self._numbers)
        return number if number <= RECORDINGS else _UNRECORDED

    def close(self) -> None:
        """Release the session."""
        del self._weights
        super().close()

    def bind(self, buffers: Mapping[str, Buffer]) -> CudaOrtBinding:
        """Put a buffer on the GPU behind every input and output, and run once, which records while there are few."""
        return CudaOrtBinding(self, self._session, buffers)


class CudaOrtBinding(OrtBinding):
    """A run of a session, which records it itself."""

    capturable = False

    def __init__(self, engine: CudaOrtEngine, session: Any, buffers: Mapping[str, Buffer]) -> None:
        import onnxruntime

        self._gpu = engine
        super().__init__(engine, session, buffers, place=("cuda", engine.device.ordinal))
        self._options = onnxruntime.RunOptions()
        number = engine.new_recording()
        self._options.add_run_config_entry("gpu_graph_id", str(number))
        if number != _UNRECORDED:
            self._recording = engine.device.lend(0, lambda: session.release_captured_graph(number))
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        engine.device.wait_idle()  # the buffers may still be written
        self.enqueue(engine.stream)
        engine.device.wait_idle()

    def enqueue(self, stream: Stream) -> None:
        """Put one run behind what is on the stream, and what follows on the stream behind the run.

        Raises:
            RunError: onnxruntime failed; carries its message.
        """
        device, own = self._gpu.device, self._gpu.stream
        device.follow(own, stream)
        super().enqueue(own)
        device.follow(stream, own)
