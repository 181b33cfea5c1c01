"""The primary context of one GPU: calls are made in it, and what the driver lends is given back to it.

Ownership. A Python object owns each thing of the driver's (memory, streams, events, graphs) and drops it when nobody
holds the object any more. Dropping calls nothing: it may happen anywhere, also between two steps or while a graph is
recorded, where releasing would wait or is forbidden. `reap` releases what was dropped, when the device is idle.

Waiting is always for an event, and by asking again and again: Ctrl-C ends it, and so does a GPU that no longer answers.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from sdxl_trt.errors import GpuLost
from sdxl_trt.runtime.cuda.driver import check

_PAUSE = 5e-5
"""Seconds between two questions whether an event has come."""


Release = Callable[[int], tuple[Any, ...]]
"""A function of the driver's that releases what a handle names."""


class Owned:
    """Something of the driver's, released some time after nobody holds this object any more."""

    def __init__(self, context: Context, handle: int) -> None:
        self.handle = handle
        self._context = context

    def __del__(self) -> None:
        self._context.dropped.append(self.handle)


class Context:
    """Calls of the driver on one GPU. For one thread at a time.

    Args:
        cu: the driver's functions, started.
        ordinal: of the GPU, as CUDA counts.
        patience: seconds that work on the GPU may take before it counts as lost.

    Raises:
        FlavourUnavailable: there is no such GPU, or another process holds it.
    """

    def __init__(self, cu: Any, ordinal: int, patience: float) -> None:
        self.cu, self._patience = cu, patience
        self.dropped = deque[int]()
        """Handles that nobody holds any more. (They are addresses: no two things alive have the same.)"""
        self.lent = dict[int, tuple[Release, int]]()
        """For each handle not yet released, how to release it, and the bytes of device memory that this gives back."""
        self.allocated, self.peak = 0, 0
        self.waited = 0.0
        """Seconds that the host has waited for the GPU."""
        self._streams = list[int]()
        self._numbers = itertools.count(-1, -1)  # of what has no address
        self._usable = True
        self._device = self.check(cu.cuDeviceGet(ordinal), f"use GPU {ordinal}")
        self._primary = self.check(cu.cuDevicePrimaryCtxRetain(self._device), f"use GPU {ordinal}")
        self.enter()
        self._idle = self.event()

    def _own(self, handle: Any, release: Release, size: int = 0) -> Owned:
        self.lent[int(handle)] = release, size
        self.allocated += size
        self.peak = max(self.peak, self.allocated)
        return Owned(self, int(handle))

    def check(self, result: tuple[Any, ...], doing: str, *, asked: int = 0) -> Any:
        """What a call returned besides its status; errors as in `driver.check`."""
        try:
            return check(self.cu, result, doing, asked=asked)
        except GpuLost:
            self._usable = False  # nothing can be released any more: the driver does it when the process ends
            raise

    def enter(self) -> None:
        """Make the calling thread's calls go to this GPU: engines and the driver look at the current context.

        Raises:
            GpuLost: it failed before, or was closed.
        """
        if not self._usable:
            raise GpuLost(
                "the GPU cannot be used any more",
                got="it was closed, or failed before",
                fix="load the pipeline again, in a new process if the GPU failed",
            )
        self.check(self.cu.cuCtxSetCurrent(self._primary), "enter the GPU's context")

    def attribute(self, which: Any) -> int:
        """A number that describes the GPU; one of CUdevice_attribute."""
        return int(self.check(self.cu.cuDeviceGetAttribute(which, self._device), "describe the GPU"))

    def name(self) -> str:
        """Of the GPU."""
        text = self.check(self.cu.cuDeviceGetName(256, self._device), "describe the GPU")
        return bytes(text).split(b"\0")[0].decode()

    def pci_bus_id(self) -> str:
        """Where the GPU is plugged in, as 0000:01:00.0: NVML counts GPUs otherwise than CUDA does."""
        text = self.check(self.cu.cuDeviceGetPCIBusId(32, self._device), "describe the GPU")
        return bytes(text).split(b"\0")[0].decode()

    def free(self) -> tuple[int, int]:
        """Bytes of its memory that are free now, and in all."""
        free, total = self.check(self.cu.cuMemGetInfo(), "ask for free memory")
        return int(free), int(total)

    def stream(self) -> Owned:
        """A new stream; the legacy default stream does not wait for it, nor it for that one."""
        flag = int(self.cu.CUstream_flags.CU_STREAM_NON_BLOCKING)
        stream = self._own(self.check(self.cu.cuStreamCreate(flag), "create a stream"), self._destroy_stream)
        self._streams.append(stream.handle)
        return stream

    def _destroy_stream(self, handle: int) -> tuple[Any, ...]:
        self._streams.remove(handle)
        result: tuple[Any, ...] = self.cu.cuStreamDestroy(handle)
        return result

    def event(self, *, timed: bool = False) -> Owned:
        """A new event, which counts as reached until it is recorded; `timed` notes when that is, and costs more."""
        flags = self.cu.CUevent_flags
        flag = int(flags.CU_EVENT_DEFAULT if timed else flags.CU_EVENT_DISABLE_TIMING)
        return self._own(self.check(self.cu.cuEventCreate(flag), "create an event"), self.cu.cuEventDestroy)

    def seconds(self, first: Owned, last: Owned) -> float:
        """From one timed event to another; both were reached. Exact to half a microsecond."""
        elapsed = self.cu.cuEventElapsedTime(first.handle, last.handle)
        return float(self.check(elapsed, "compare two events' times")) / 1000

    def graph(self, handle: Any) -> Owned:
        """An executable graph that was made."""
        return self._own(handle, self.cu.cuGraphExecDestroy)

    def lend(self, size: int, release: Callable[[], object]) -> Owned:
        """Something on the GPU that a library has: counted as allocated, and released as what is the driver's."""

        def released(_handle: int) -> tuple[Any, ...]:
            release()
            return (self.cu.CUresult.CUDA_SUCCESS,)

        return self._own(next(self._numbers), released, size)

    def allocate(self, size: int, what: str) -> Owned:
        """Device memory, aligned to 256 bytes or more; its content is anything.

        Raises:
            OutOfMemory: there is too little.
        """
        self.reap()
        pointer = self.check(self.cu.cuMemAlloc(size), f"allocate {what}", asked=size)
        return self._own(pointer, self.cu.cuMemFree, size)

    def allocate_pinned(self, size: int) -> Owned:
        """Host memory that the GPU copies from and to while the host goes on."""
        address = self.check(self.cu.cuMemHostAlloc(size, 0), "allocate pinned host memory", asked=size)
        return self._own(address, self.cu.cuMemFreeHost)

    def record(self, event: Owned, stream: int) -> None:
        """Have an event reached once everything that is on a stream now is done."""
        self.check(self.cu.cuEventRecord(event.handle, stream), "record an event")

    def wait_on_gpu(self, stream: int, event: Owned) -> None:
        """Have a stream wait for an event, as it was recorded last. The host does not."""
        self.check(self.cu.cuStreamWaitEvent(stream, event.handle, 0), "have a stream wait")

    def wait(self, event: Owned) -> None:
        """Wait until an event is reached.

        Raises:
            GpuLost: the GPU failed, or took longer than the patience there is.
        """
        if self.reached(event):
            return
        started = time.monotonic()
        while not self.reached(event):
            if time.monotonic() > started + self._patience:
                self._usable = False
                raise GpuLost(
                    "the GPU does not answer",
                    got=f"work that is not done after {self._patience:g} seconds",
                    expected="every step done within seconds",
                    fix="start this process again; look at nvidia-smi, and for 'Xid' in the kernel's log (dmesg)",
                )
            time.sleep(_PAUSE)
        self.waited += time.monotonic() - started

    def reached(self, event: Owned) -> bool:
        """Whether an event is reached, as it was recorded last."""
        result = self.cu.cuEventQuery(event.handle)
        if result[0] == self.cu.CUresult.CUDA_ERROR_NOT_READY:
            return False
        self.check(result, "finish the work that is on it")
        return True

    def wait_idle(self) -> None:
        """Wait until all streams are empty."""
        for stream in self._streams:
            self.record(self._idle, stream)
            self.wait(self._idle)

    def reap(self) -> None:
        """Release what was dropped, once nothing on the GPU can use it any more."""
        if self.dropped:
            self.wait_idle()
        while self.dropped:
            self._give_back(self.dropped.popleft())

    def _give_back(self, handle: int) -> None:
        release, size = self.lent.pop(handle)
        self.check(release(handle), "release what is not used any more")
        self.allocated -= size

    def close(self) -> None:
        """Wait for the GPU, release everything, also what is still held, and leave the context."""
        if not self._usable:
            return
        self.enter()
        self.wait_idle()
        for handle in reversed(tuple(self.lent)):
            self._give_back(handle)
        self._usable = False
        self.check(self.cu.cuDevicePrimaryCtxRelease(self._device), "leave the GPU's context")
