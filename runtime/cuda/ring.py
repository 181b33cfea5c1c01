"""Pinned host memory in blocks that are used in turn, each guarded by an event.

The host writes a block and goes on; the GPU reads it when the stream gets there. A block is written again only after
the event behind its last copy, so the host runs at most one lap of the ring ahead of the GPU.
"""

from __future__ import annotations

import ctypes
import itertools
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.cuda.context import Context

Bytes = NDArray[np.uint8]


class PinnedRing:
    """Copies of any length in both directions, in pieces of a block. Allocates here and never again.

    Args:
        context: of the GPU.
        blocks: how many.
        size: of each, in bytes.
    """

    def __init__(self, context: Context, *, blocks: int, size: int) -> None:
        self._context, self._size = context, size
        self._memory = context.allocate_pinned(blocks * size)
        self._addresses = [self._memory.handle + index * size for index in range(blocks)]
        self._views: list[Bytes] = [
            np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)) for address in self._addresses
        ]
        self._events = [context.event() for _ in range(blocks)]
        self._next = itertools.cycle(range(blocks))

    def upload(self, data: Bytes, pointer: int, stream: int) -> None:
        """Copy `data` to the GPU in the order of the stream. Returns when it is in pinned memory."""
        context = self._context
        for start, length in self._pieces(len(data)):
            block = self._free_block()
            self._views[block][:length] = data[start : start + length]
            address = self._addresses[block]
            context.check(context.cu.cuMemcpyHtoDAsync(pointer + start, address, length, stream), "copy to the GPU")
            context.record(self._events[block], stream)

    def download(self, pointer: int, size: int, stream: int) -> Bytes:
        """`size` bytes from the GPU, as they are once everything on the stream is done; waits for it."""
        context, data = self._context, np.empty(size, np.uint8)
        under_way = deque[tuple[int, int, int]]()
        for start, length in self._pieces(size):
            if len(under_way) == len(self._events):
                self._collect(data, *under_way.popleft())
            block = self._free_block()
            address = self._addresses[block]
            context.check(context.cu.cuMemcpyDtoHAsync(address, pointer + start, length, stream), "copy from the GPU")
            context.record(self._events[block], stream)
            under_way.append((block, start, length))
        for piece in under_way:
            self._collect(data, *piece)
        return data

    def _collect(self, data: Bytes, block: int, start: int, length: int) -> None:
        self._context.wait(self._events[block])
        data[start : start + length] = self._views[block][:length]

    def _free_block(self) -> int:
        """The next block, once its last copy is done."""
        block = next(self._next)
        self._context.wait(self._events[block])
        return block

    def _pieces(self, size: int) -> list[tuple[int, int]]:
        """Start and length of each part that fits a block."""
        return [(start, min(self._size, size - start)) for start in range(0, size, self._size)]


def as_bytes(array: NDArray[Any]) -> Bytes:
    """An array's elements in C order as bytes; a copy only where they do not lie so."""
    flat: Bytes = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return flat
