"""The second seam: where tensors live, how they move, and how a sequence of work is repeated.

`HostDevice` is the CPU over numpy. A device with queues of its own does the same things asynchronously, in the order
of the stream; nothing waits for it but `download`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

Stream = object
"""An ordered queue of a device's work. Opaque to all but its device and the engines that run on it."""

Work = Callable[[Stream], None]
"""Something that puts work on a stream and returns."""


class Buffer(Protocol):
    """A C-contiguous tensor in a device's memory, which it keeps alive."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, outermost first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of one element."""

    @property
    def pointer(self) -> int:
        """Address of the first element on its device."""

    def __getitem__(self, key: int | slice) -> Buffer:
        """A view of one entry of the first dimension, or of a run of them."""


class Tensor(Protocol):
    """What a buffer and a numpy array have in common."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, outermost first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of one element."""


def check_alike(source: Tensor, target: Tensor) -> None:
    """Make sure that a memory copy can copy one over the other: it neither broadcasts nor casts.

    Raises:
        ValueError: their shapes differ.
        TypeError: their dtypes differ.
    """
    if source.shape != target.shape:
        raise ValueError(f"cannot copy {source.shape} over {target.shape}")
    if source.dtype != target.dtype:
        raise TypeError(f"cannot copy {source.dtype} over {target.dtype}: that would be a cast")


class Event(Protocol):
    """A place in a stream's work; recorded again and again."""

    def record(self, stream: Stream) -> None:
        """Be reached once everything that is on a stream now is done."""

    def reached(self) -> bool:
        """Whether it is, as it was recorded last."""

    def wait(self) -> None:
        """Wait until it is."""


class Timer(Protocol):
    """Moments of a device's work, for measurements."""

    def mark(self, stream: Stream) -> None:
        """Have the moment noted when what is on a stream now is done. Neither waits nor allocates."""

    def intervals(self) -> list[float]:
        """Seconds from each mark to the next, of those since the last call; waits for them."""


class Device(Protocol):
    """Memory, copies and replay."""

    captures: bool
    """Work is recorded once per shape and replayed, so few shapes are better than exact ones."""

    def stream(self) -> Stream:
        """A new queue."""

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike, what: str = "a tensor") -> Buffer:
        """A new buffer, filled with zeros; `what` it is, in words, is for the error where there is no room."""

    def upload(self, buffer: Buffer, array: NDArray[Any], stream: Stream) -> None:
        """Copy an array of the buffer's shape and dtype into it; `array` may be changed as soon as this returns."""

    def download(self, buffer: Buffer, stream: Stream) -> NDArray[Any]:
        """A copy of what the buffer holds once everything on the stream before this call is done; waits for it."""

    def event(self) -> Event:
        """A new one, which counts as reached."""

    def read(self, buffer: Buffer, event: Event) -> NDArray[Any]:
        """A copy of what a buffer holds once an event is reached; waits for that, and for nothing that came later."""

    def copy(self, source: Buffer, target: Buffer, stream: Stream) -> None:
        """Copy a buffer over another of the same shape and dtype."""

    def capture(self, work: Work, stream: Stream) -> Work:
        """Record what `work` puts on the stream, without running it; what is returned runs it, as often as called."""

    def trim(self) -> None:
        """Wait for what runs, and give back the memory that nobody holds any more, scratch memory of engines too."""

    def close(self) -> None:
        """Wait for what runs and release everything; buffers and recordings must not be used afterwards."""

    def timer(self, marks: int) -> Timer:
        """A timer for so many marks between two looks at them."""


@dataclass(frozen=True)
class HostBuffer:
    """A numpy array as a `Buffer`."""

    array: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, outermost first."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of one element."""
        return self.array.dtype

    @property
    def pointer(self) -> int:
        """Address of the first element."""
        return self.array.ctypes.data

    def __getitem__(self, key: int | slice) -> HostBuffer:
        """A view of one entry of the first dimension, or of a run of them."""
        return HostBuffer(self.array[key])


class HostEvent:
    """The host has done what it was told before it goes on: every event is reached."""

    def record(self, stream: Stream) -> None:
        """Nothing to mark."""

    def reached(self) -> bool:
        """Always."""
        return True

    def wait(self) -> None:
        """Nothing to wait for."""


class HostDevice:
    """The CPU: work is done at once, on the calling thread, so a stream is nothing and a recording the work itself."""

    captures = False

    def stream(self) -> Stream:
        """A placeholder."""
        return None

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike, what: str = "a tensor") -> HostBuffer:  # noqa: ARG002
        """A new array of zeros."""
        return HostBuffer(np.zeros(shape, dtype))

    def upload(self, buffer: Buffer, array: NDArray[Any], stream: Stream) -> None:  # noqa: ARG002
        """Copy an array of the buffer's shape and dtype into it."""
        _copy(array, _array(buffer))

    def download(self, buffer: Buffer, stream: Stream) -> NDArray[Any]:  # noqa: ARG002
        """A copy of the buffer's array."""
        return _array(buffer).copy()

    def event(self) -> HostEvent:
        """One that is always reached."""
        return HostEvent()

    def read(self, buffer: Buffer, event: Event) -> NDArray[Any]:  # noqa: ARG002
        """A copy of the buffer's array."""
        return _array(buffer).copy()

    def copy(self, source: Buffer, target: Buffer, stream: Stream) -> None:  # noqa: ARG002
        """Copy a buffer over another of the same shape and dtype."""
        _copy(_array(source), _array(target))

    def capture(self, work: Work, stream: Stream) -> Work:  # noqa: ARG002
        """The work as it is."""
        return work

    def trim(self) -> None:
        """Nothing: arrays go when nobody holds them."""

    def close(self) -> None:
        """Nothing: arrays go when nobody holds them."""

    def timer(self, marks: int) -> HostTimer:  # noqa: ARG002
        """The host's clock."""
        return HostTimer()


class HostTimer:
    """Work on the host is done when it is asked for, so a mark is the time by its clock."""

    def __init__(self) -> None:
        self._moments = list[float]()

    def mark(self, stream: Stream) -> None:  # noqa: ARG002
        """Note the time."""
        self._moments.append(time.perf_counter())

    def intervals(self) -> list[float]:
        """Seconds from each mark to the next, of those since the last call."""
        moments, self._moments = self._moments, []
        return [after - before for before, after in itertools.pairwise(moments)]


def _array(buffer: Buffer) -> NDArray[Any]:
    return cast(HostBuffer, buffer).array


def _copy(source: NDArray[Any], target: NDArray[Any]) -> None:
    check_alike(source, target)
    np.copyto(target, source)
