"""The functions of cuda.bindings.driver that the runtime calls, over host memory: counted, and strict about misuse.

Copies move bytes, recorded work is run again by each launch. Work runs at once, or (`late`) as late as a GPU may: one
piece for each time somebody asks whether an event has come. `Misuse` is raised where a real GPU would read garbage,
fail later or elsewhere, or wait where it must not. There is no function that waits for a whole stream or the device.
"""

# ruff: noqa: N802 (names are the driver's)

from __future__ import annotations

import bisect
import functools
import itertools
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import numpy as np
from cuda.bindings import driver as real
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Piece = Callable[[], None]
OK = real.CUresult.CUDA_SUCCESS


class Misuse(AssertionError):
    """What must never happen."""


def call(function: Callable[..., Any]) -> Callable[..., Any]:
    """Count a call, refuse what a recording cannot hold, and fail where the test says so."""
    name = function.__name__

    @functools.wraps(function)
    def counted(self: RecordingDriver, *arguments: Any) -> tuple[Any, ...]:
        self.calls[name] += 1
        status = self.fail.get(name) or self.broken
        if status and name != "cuGetErrorString":
            return (status,)
        if self.recording is not None and name not in _RECORDABLE:
            raise Misuse(f"{name} while a graph is recorded")
        if name not in _ANYWHERE and getattr(self.thread, "context", None) is None:
            raise Misuse(f"{name} without a current context")
        result = function(self, *arguments)
        return (result,) if isinstance(result, real.CUresult) else (OK, *(result or ()))

    return counted


_RECORDABLE = {"cuCtxSetCurrent", "cuMemcpyDtoDAsync", "cuStreamEndCapture", "cuGetErrorString"}
_ANYWHERE = {
    "cuInit", "cuDriverGetVersion", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute", "cuGetErrorString",
    "cuDeviceGetPCIBusId", "cuDeviceGetCount", "cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease",
    "cuCtxSetCurrent",
}  # fmt: skip


class _Stream:
    def __init__(self) -> None:
        self.queue = deque[Any]()  # pieces, and events that are waited for


class _Event:
    def __init__(self, *, timed: bool) -> None:
        self.reached, self.stream, self.timed = True, _Stream(), timed
        self.moment: int | None = None  # pieces of work that were done before it


class RecordingDriver:
    """Pass it as `driver` of `CudaDevice`.

    Args:
        late: work waits until somebody asks for an event.
        memory: bytes of the pretended GPU.
        version: of CUDA, as the driver counts.
        name: of the pretended GPU.
        gpus: how many there are.
    """

    CUresult = real.CUresult
    CUstream_flags = real.CUstream_flags
    CUevent_flags = real.CUevent_flags
    CUstreamCaptureMode = real.CUstreamCaptureMode
    CUdevice_attribute = real.CUdevice_attribute

    def __init__(
        self, *, late: bool = False, memory: int = 2**30, version: int = 13000, name: str = "Recorder", gpus: int = 1
    ) -> None:
        self.late, self.memory, self.version, self.name, self.gpus = late, memory, version, name, gpus
        self.calls = Counter[str]()
        self.waits = 0
        """How often an event was asked for that had not come."""
        self.fail = dict[str, Any]()
        """Status that a function returns from now on."""
        self.broken: Any = None
        """Status that every function returns from now on."""
        self.stalled = False
        """No work is done from now on."""
        self.done = 0
        """Pieces of work."""
        self.recording: list[Piece] | None = None
        self.thread = threading.local()
        self.contexts = 0
        self._handles = itertools.count(1)
        self._things = dict[int, Any]()
        self._kinds = dict[int, str]()
        self._bases = list[int]()
        self._graves = list[Bytes]()

    @property
    def live(self) -> Counter[str]:
        """How many of each kind are lent now: device, pinned, stream, event, graph, executable."""
        return Counter(self._kinds.values())

    def tensor(self, pointer: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Device memory as an array: what a kernel sees."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self._bytes(pointer, size, "device").view(dtype).reshape(shape)

    def launch(self, stream: int, kernel: Piece) -> None:
        """Put a kernel on a stream."""
        self._put(stream, kernel)

    def hurry(self, handle: int) -> None:
        """Do all that is on a stream, and of the others only what it waits for."""
        stream = self._get(handle, "stream")
        while stream.queue:
            self._advance(stream)

    # Starting

    @call
    def cuInit(self, flags: int) -> None:
        assert flags == 0

    @call
    def cuDriverGetVersion(self) -> tuple[int]:
        return (self.version,)

    @call
    def cuDeviceGet(self, ordinal: int) -> tuple[int]:
        return (ordinal,)

    @call
    def cuDeviceGetName(self, length: int, device: int) -> tuple[bytes]:
        return (self.name.encode().ljust(length, b"\0"),)

    @call
    def cuDeviceGetCount(self) -> tuple[int]:
        return (self.gpus,)

    @call
    def cuDeviceGetPCIBusId(self, length: int, device: int) -> tuple[bytes]:
        return (b"0000:01:00.0".ljust(length, b"\0"),)

    @call
    def cuDeviceGetAttribute(self, which: Any, device: int) -> tuple[int]:
        return ({self.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: 8}.get(which, 9),)

    @call
    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[str]:
        self.contexts += 1
        return ("context",)

    @call
    def cuDevicePrimaryCtxRelease(self, device: int) -> None:
        self.contexts -= 1

    @call
    def cuCtxSetCurrent(self, context: str) -> None:
        self.thread.context = context

    @call
    def cuGetErrorString(self, status: Any) -> tuple[bytes]:
        return (f"as in {status.name}".encode(),)

    # Memory

    def _lend(self, kind: str, thing: Any, handle: int | None = None) -> tuple[int]:
        handle = next(self._handles) if handle is None else handle
        self._things[handle], self._kinds[handle] = thing, kind
        return (handle,)

    def _get(self, handle: int, kind: str) -> Any:
        if self._kinds.get(handle) != kind:
            raise Misuse(f"{handle:#x} is no {kind}, or was released")
        return self._things[handle]

    def _release(self, handle: int, kind: str) -> Any:
        thing = self._get(handle, kind)
        del self._things[handle], self._kinds[handle]
        return thing

    def _new_block(self, kind: str, size: int) -> tuple[int]:
        if size <= 0:
            raise Misuse(f"an allocation of {size} bytes")
        block = np.full(size + 256, 0xAB, np.uint8)
        block = block[-block.ctypes.data % 256 :][:size]  # aligned as the driver's memory
        address = block.ctypes.data
        bisect.insort(self._bases, address)
        return self._lend(kind, block, address)

    def _bytes(self, pointer: int, size: int, kind: str) -> Bytes:
        index = bisect.bisect_right(self._bases, pointer) - 1
        base = self._bases[index] if index >= 0 else 0
        block: Bytes = self._get(base, kind)
        if not 0 <= pointer - base <= pointer - base + size <= len(block):
            raise Misuse(f"{size} bytes at {pointer - base} of {len(block)}")
        return block[pointer - base : pointer - base + size]

    def _free_block(self, pointer: int, kind: str) -> None:
        block = self._release(pointer, kind)
        self._bases.remove(pointer)
        block[:] = 0xCD
        self._graves.append(block)  # so that its address is not used again

    def _used(self) -> int:
        return sum(len(self._things[handle]) for handle, kind in self._kinds.items() if kind == "device")

    @call
    def cuMemGetInfo(self) -> tuple[int, int]:
        return self.memory - self._used(), self.memory

    @call
    def cuMemAlloc(self, size: int) -> Any:
        if size > self.memory - self._used():
            return self.CUresult.CUDA_ERROR_OUT_OF_MEMORY
        return self._new_block("device", size)

    @call
    def cuMemFree(self, pointer: int) -> None:
        self._free_block(pointer, "device")

    @call
    def cuMemHostAlloc(self, size: int, flags: int) -> tuple[int]:
        return self._new_block("pinned", size)

    @call
    def cuMemFreeHost(self, address: int) -> None:
        self._free_block(address, "pinned")

    @call
    def cuMemsetD8Async(self, pointer: int, value: int, size: int, stream: int) -> None:
        self._put(stream, lambda: self._bytes(pointer, size, "device").fill(value))

    @call
    def cuMemcpyHtoDAsync(self, target: int, source: int, size: int, stream: int) -> None:
        given = self._bytes(source, size, "pinned").copy()

        def piece() -> None:
            now = self._bytes(source, size, "pinned")
            if not np.array_equal(now, given):
                raise Misuse("a pinned block was written before its copy ran")
            self._bytes(target, size, "device")[:] = now

        self._put(stream, piece)

    @call
    def cuMemcpyDtoHAsync(self, target: int, source: int, size: int, stream: int) -> None:
        self._bytes(target, size, "pinned").fill(0xEE)
        self._put(stream, lambda: np.copyto(self._bytes(target, size, "pinned"), self._bytes(source, size, "device")))

    @call
    def cuMemcpyDtoDAsync(self, target: int, source: int, size: int, stream: int) -> None:
        self._put(stream, lambda: np.copyto(self._bytes(target, size, "device"), self._bytes(source, size, "device")))

    # Streams and events

    def _put(self, handle: int, piece: Any) -> None:
        stream = self._get(handle, "stream")
        if self.recording is not None:
            self.recording.append(piece)
            return
        stream.queue.append(piece)
        while stream.queue and not self.late:
            self._advance(stream)

    @call
    def cuStreamCreate(self, flags: int) -> tuple[int]:
        assert flags == int(self.CUstream_flags.CU_STREAM_NON_BLOCKING)
        return self._lend("stream", _Stream())

    def _advance(self, stream: _Stream) -> None:
        """Do the next piece of a stream, or of the one that it waits for."""
        awaited = stream.queue[0]
        if isinstance(awaited, _Event):
            if not awaited.reached:
                self._advance(awaited.stream)
                return
            stream.queue.popleft()
        else:
            stream.queue.popleft()()
            self.done += 1

    @call
    def cuStreamWaitEvent(self, handle: int, event: int, flags: int) -> None:
        self._put(handle, self._get(event, "event"))

    @call
    def cuStreamDestroy(self, stream: int) -> None:
        self._release(stream, "stream")

    @call
    def cuEventCreate(self, flags: int) -> tuple[int]:
        kinds = self.CUevent_flags
        assert flags in (int(kinds.CU_EVENT_DEFAULT), int(kinds.CU_EVENT_DISABLE_TIMING))
        return self._lend("event", _Event(timed=flags == int(kinds.CU_EVENT_DEFAULT)))

    @call
    def cuEventDestroy(self, event: int) -> None:
        self._release(event, "event")

    @call
    def cuEventRecord(self, handle: int, stream: int) -> None:
        event = _Event(timed=self._get(handle, "event").timed)
        event.reached, event.stream = False, self._get(stream, "stream")
        self._things[handle] = event

        def reach() -> None:
            event.reached, event.moment = True, self.done

        self._put(stream, reach)

    @call
    def cuEventElapsedTime(self, first: int, last: int) -> tuple[float]:
        """A millisecond for each piece of work in between."""
        begin, end = (self._get(handle, "event") for handle in (first, last))
        if not (begin.timed and end.timed and begin.reached and end.reached):
            raise Misuse("the time of an event that has none, or has not come")
        return (float(end.moment - begin.moment),)

    @call
    def cuEventQuery(self, handle: int) -> Any:
        event = self._get(handle, "event")
        if event.reached:
            return OK
        self.waits += 1
        if not self.stalled:
            self._advance(event.stream)
        return self.CUresult.CUDA_ERROR_NOT_READY

    # Graphs

    @call
    def cuStreamBeginCapture(self, stream: int, mode: Any) -> None:
        assert mode == self.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._get(stream, "stream")
        self.recording = []

    @call
    def cuStreamEndCapture(self, stream: int) -> tuple[int]:
        pieces, self.recording = self.recording, None
        return self._lend("graph", pieces)

    @call
    def cuGraphInstantiate(self, graph: int, flags: int) -> tuple[int]:
        return self._lend("executable", self._get(graph, "graph"))

    @call
    def cuGraphDestroy(self, graph: int) -> None:
        self._release(graph, "graph")

    @call
    def cuGraphUpload(self, executable: int, stream: int) -> None:
        self._get(executable, "executable")

    @call
    def cuGraphLaunch(self, executable: int, stream: int) -> None:
        for piece in self._get(executable, "executable"):
            self._put(stream, piece)

    @call
    def cuGraphExecDestroy(self, executable: int) -> None:
        self._release(executable, "executable")
