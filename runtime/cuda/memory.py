"""Tensors in a GPU's memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdxl_trt.runtime.cuda.context import Owned


@dataclass(frozen=True)
class CudaBuffer:
    """A C-contiguous tensor, or a run of one's first dimension, by address. It keeps the memory alive."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pointer: int
    owner: Owned

    @property
    def nbytes(self) -> int:
        """Its length in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, key: int | slice) -> CudaBuffer:
        """A view of one entry of the first dimension, or of a run of them.

        Raises:
            IndexError: there is no such entry.
            ValueError: a slice with steps, which would not be contiguous.
        """
        entries = range(self.shape[0])[key]
        stride = math.prod(self.shape[1:]) * self.dtype.itemsize
        if isinstance(entries, int):
            return CudaBuffer(self.shape[1:], self.dtype, self.pointer + entries * stride, self.owner)
        if entries.step != 1:
            raise ValueError(f"a view is contiguous: no steps of {entries.step}")
        shape = (len(entries), *self.shape[1:])
        return CudaBuffer(shape, self.dtype, self.pointer + entries.start * stride, self.owner)


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Of a GPU, in bytes."""

    allocated: int
    """Now, by buffers, arenas and the weights of engines; what a library takes beyond them is its own."""
    peak: int
    """The most that was allocated at once."""
    free: int
    """Of the whole GPU now, by anybody."""
    total: int
