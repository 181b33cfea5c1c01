"""`CudaDevice`: the device seam on an NVIDIA GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sdxl_trt.runtime.cuda.arenas import Arenas
from sdxl_trt.runtime.cuda.context import Context, Owned
from sdxl_trt.runtime.cuda.driver import cuda_version, driver_version, open_driver
from sdxl_trt.runtime.cuda.event import CudaEvent
from sdxl_trt.runtime.cuda.graph import CudaGraph
from sdxl_trt.runtime.cuda.memory import CudaBuffer, MemoryUse
from sdxl_trt.runtime.cuda.ring import PinnedRing, as_bytes
from sdxl_trt.runtime.cuda.timer import CudaTimer
from sdxl_trt.runtime.device import Buffer, Event, Stream, Work, check_alike

UPLOAD_BLOCKS, UPLOAD_BLOCK = 64, 2**18
"""Blocks of the ring for uploads, and bytes of each: the noise of one picture at 1024² fills one."""
DOWNLOAD_BLOCKS, DOWNLOAD_BLOCK = 8, 2**20

PATIENCE = 600.0
"""Seconds. The host is at most a lap of the ring ahead, 64 steps: that is as long as they may take on a slow GPU."""


class CudaDevice:
    """One NVIDIA GPU. For one thread at a time, whichever it is.

    After the first picture of a shape nothing is allocated, and no step waits for the GPU: the host writes into the
    next pinned block and launches one graph. It waits where it is a whole lap of the ring ahead, and in `download`.

    Args:
        ordinal: of the GPU, as CUDA counts.
        driver: what has the driver's functions; the module cuda.bindings.driver when not given.
        patience: seconds that work on the GPU may take before it counts as lost.

    Raises:
        FlavourUnavailable: cuda-python or the driver is missing or too old, there is no such GPU, or it is held by
            another process.
        OutOfMemory: there is not even room for the pinned blocks.
    """

    captures = True

    def __init__(self, ordinal: int = 0, *, driver: Any = None, patience: float = PATIENCE) -> None:
        self._context = Context(open_driver(driver), ordinal, patience)
        self.ordinal = ordinal
        attribute = self._context.cu.CUdevice_attribute
        self.name = self._context.name()
        self.sm = 10 * self._context.attribute(
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        ) + self._context.attribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)
        self.driver_version, self.cuda_version = driver_version(self._context.cu), cuda_version(self._context.cu)
        self.pci_bus_id = self._context.pci_bus_id()
        self.arenas = Arenas(self._context)
        self._up = PinnedRing(self._context, blocks=UPLOAD_BLOCKS, size=UPLOAD_BLOCK)
        self._down = PinnedRing(self._context, blocks=DOWNLOAD_BLOCKS, size=DOWNLOAD_BLOCK)
        self._own_stream, self._reading = self._context.stream(), self._context.stream()
        self._passed = CudaEvent(self._context)

    def stream(self) -> Owned:
        """A new queue; where the arenas share one block, the same for everybody."""
        self._context.enter()
        return self._context.stream() if self.arenas.overlap else self._own_stream

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike, what: str = "a tensor") -> CudaBuffer:
        """A new buffer, filled with zeros.

        Raises:
            OutOfMemory: there is too little; names `what`.
        """
        context, kind = self._context, np.dtype(dtype)
        context.enter()
        size = math.prod(shape) * kind.itemsize
        owner = context.allocate(max(size, 1), f"{what} {list(shape)} of {kind}")
        stream = self._own_stream.handle
        context.check(context.cu.cuMemsetD8Async(owner.handle, 0, size, stream), "fill memory with zeros")
        context.wait_idle()  # other streams do not wait for this one
        return CudaBuffer(tuple(shape), kind, owner.handle, owner)

    def upload(self, buffer: Buffer, array: NDArray[Any], stream: Stream) -> None:
        """Copy an array of the buffer's shape and dtype into it; returns once the array is in pinned memory.

        Raises:
            GpuLost: the GPU failed.
        """
        check_alike(array, buffer)
        self._context.enter()
        self._up.upload(as_bytes(array), buffer.pointer, _handle(stream))

    def download(self, buffer: Buffer, stream: Stream) -> NDArray[Any]:
        """A copy of what the buffer holds once everything on the stream before this call is done; waits for it.

        Raises:
            GpuLost: the GPU failed, now or in what was on the stream.
        """
        self._context.enter()
        data = self._down.download(buffer.pointer, cast(CudaBuffer, buffer).nbytes, _handle(stream))
        return data.view(buffer.dtype).reshape(buffer.shape)

    def event(self) -> CudaEvent:
        """A new one, which counts as reached."""
        self._context.enter()
        return CudaEvent(self._context)

    def read(self, buffer: Buffer, event: Event) -> NDArray[Any]:
        """A copy of what a buffer holds once an event is reached, on a stream that has nothing else to do.

        Raises:
            GpuLost: the GPU failed, now or in what the event is behind.
        """
        self._context.enter()
        cast(CudaEvent, event).hold(self._reading)
        return self.download(buffer, self._reading)

    def copy(self, source: Buffer, target: Buffer, stream: Stream) -> None:
        """Copy a buffer over another of the same shape and dtype."""
        check_alike(source, target)
        context, size = self._context, cast(CudaBuffer, target).nbytes
        context.enter()
        context.check(
            context.cu.cuMemcpyDtoDAsync(target.pointer, source.pointer, size, _handle(stream)), "copy on the GPU"
        )

    def lend(self, size: int, release: Callable[[], object] = lambda: None) -> Owned:
        """Count bytes that a library has on the GPU, until nobody holds what is returned.

        Args:
            size: bytes.
            release: called some time after that, when the GPU is idle and no work is recorded.
        """
        self._context.enter()
        return self._context.lend(size, release)

    def capture(self, work: Work, stream: Stream) -> Work:
        """Record what `work` puts on the stream, without running it; what is returned runs it in one launch.

        Raises:
            RunError: it does what cannot be recorded.
        """
        self._context.enter()
        self._context.reap()  # not while it is recorded
        graph = CudaGraph(self._context, work, cast(Owned, stream))

        def launch(stream: Stream) -> None:
            self._context.enter()
            graph.launch(cast(Owned, stream))

        return launch

    def follow(self, stream: Stream, other: Stream) -> None:
        """Have what is put on a stream from now on wait, on the GPU, for what is on another one now."""
        if stream is not other:
            self._passed.record(other)
            self._passed.hold(cast(Owned, stream))

    def make_current(self) -> None:
        """Make what the calling thread does with CUDA, an engine's library included, happen on this GPU."""
        self._context.enter()

    def wait_idle(self) -> None:
        """Wait until all streams are empty: before an engine is prepared, never in the loop."""
        self._context.enter()
        self._context.wait_idle()

    def trim(self) -> None:
        """Wait until all streams are empty, and release what nobody holds any more, arenas too."""
        self.wait_idle()
        self.arenas.clear()
        self._context.reap()

    def timer(self, marks: int) -> CudaTimer:
        """A timer for so many marks between two looks at them."""
        self._context.enter()
        return CudaTimer(self._context, marks)

    def waited(self) -> float:
        """Seconds that the host has waited for the GPU so far."""
        return self._context.waited

    def memory(self) -> MemoryUse:
        """What is allocated and what is free."""
        self._context.enter()
        free, total = self._context.free()
        return MemoryUse(allocated=self._context.allocated, peak=self._context.peak, free=free, total=total)

    def close(self) -> None:
        """Wait for the GPU and release everything; buffers, graphs and engines must not be used afterwards."""
        self._context.close()

    def __enter__(self) -> CudaDevice:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _handle(stream: Stream) -> int:
    return cast(Owned, stream).handle
