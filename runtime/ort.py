"""Engines of the `onnxruntime` flavour, on the CPU (and what `ort_cuda` shares with them)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdxl_trt.bundle import BlobStore, EngineEntry
from sdxl_trt.errors import BundleError, RunError
from sdxl_trt.runtime.device import Buffer, Stream
from sdxl_trt.runtime.engine import AlwaysOpen, check_signature

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
}


_PACKED = 2**30
"""Bytes of weights up to which they are packed as the matrix products read them, which copies them into memory.

Larger ones stay mapped: full-size SDXL's would take 12 GB more, and save a tenth of the time (benchmarks/fullsize.py).
"""


class OrtEngine(AlwaysOpen):
    """One graph in an onnxruntime session.

    Args:
        store: the bundle's files.
        entry: what the manifest says of this engine.
        name: of the graph, for messages.
        threads: that one run may use; as many as this process may run on when not given.

    Raises:
        BundleError: a file fails its check, onnxruntime refuses the graph, or its tensors are not the manifest's.
    """

    def __init__(self, store: BlobStore, entry: EngineEntry, name: str, *, threads: int | None = None) -> None:
        self.name = name
        self.inputs = {tensor.name: tensor for tensor in entry.inputs}
        self.outputs = {tensor.name: tensor for tensor in entry.outputs}
        for weights in entry.weights:  # the graph names them by their hash, and they lie beside it
            store.verify(weights, f"the weights of {name}")
        packed = sum(weights.bytes for weights in entry.weights) <= _PACKED
        self._session = self._open(store.verify(entry.file, f"the graph {name}"), threads, packed=packed)
        check_signature(f"the inputs of {name}", entry.inputs, _signature(self._session.get_inputs()))
        check_signature(f"the outputs of {name}", entry.outputs, _signature(self._session.get_outputs()))

    def _open(self, path: Path, threads: int | None, *, packed: bool) -> Any:
        return open_session(path, self.name, threads, packed=packed, providers=["CPUExecutionProvider"])

    def bind(self, buffers: Mapping[str, Buffer]) -> OrtBinding:
        """Put a host buffer behind every input and output."""
        return OrtBinding(self, self._session, buffers)

    def close(self) -> None:
        """Release the session."""
        del self._session


class OrtBinding:
    """A session with the addresses of its tensors: a run allocates and copies none of them."""

    capturable = True

    def __init__(
        self, engine: OrtEngine, session: Any, buffers: Mapping[str, Buffer], place: tuple[str, int] = ("cpu", 0)
    ) -> None:
        self._engine, self._session = engine, session
        self._buffers = dict(buffers)  # kept alive: the binding has only their addresses
        self._options: Any = None
        self._binding = session.io_binding()
        for names, bind in ((engine.inputs, self._binding.bind_input), (engine.outputs, self._binding.bind_output)):
            for name in names:
                buffer = buffers[name]
                bind(name, *place, buffer.dtype.type, buffer.shape, buffer.pointer)

    def enqueue(self, stream: Stream) -> None:  # noqa: ARG002
        """Run now.

        Raises:
            RunError: onnxruntime failed; carries its message.
        """
        try:
            self._session.run_with_iobinding(self._binding, self._options)
        except Exception as error:  # its exceptions have no common base but this
            raise RunError(
                f"onnxruntime could not run {self._engine.name}",
                got=str(error),
                fix="a smaller size or batch if memory is short; else build the bundle again",
            ) from error


def open_session(path: Path, name: str, threads: int | None, *, packed: bool, providers: list[Any]) -> Any:
    """An InferenceSession.

    Args:
        path: the graph.
        name: of the graph, for messages.
        threads: that one run may use; as many as this process may run on when not given.
        packed: copy weights into memory in the order that matrix products read them.
        providers: of onnxruntime, as it takes them.

    Raises:
        BundleError: onnxruntime refuses the graph.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; they are raised as well
    # Steps are short: threads that sleep at once are a third slower, threads that spin for longer starve the others.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "20")
    options.add_session_config_entry("session.disable_prepacking", "0" if packed else "1")
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # its exceptions have no common base but this
        raise BundleError(
            f"onnxruntime {onnxruntime.__version__} cannot load {name}",
            got=str(error),
            fix="build the bundle again, on this host if it was built on another",
        ) from error


def _signature(arguments: Any) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    return {
        argument.name: (
            _DTYPES.get(argument.type, argument.type),
            tuple(size if isinstance(size, int) else None for size in argument.shape),
        )
        for argument in arguments
    }
