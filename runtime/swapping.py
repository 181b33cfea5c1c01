"""Engines that take turns: one is open at a time, and makes room for the next. The same for every flavour.

What users keep of an engine (buffers, bindings, recordings) is dropped before it is closed, and it is closed before the
next is opened. So shapes are bound, and recorded, again after every load. While an engine runs, the files of the one
that will be next are read ahead (`runtime/ahead.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import WeakSet

from sdxl_trt.bundle import EngineEntry
from sdxl_trt.runtime.ahead import Ahead
from sdxl_trt.runtime.device import Buffer, Device
from sdxl_trt.runtime.engine import Binding, Engine
from sdxl_trt.runtime.recent import Recent


class Turns:
    """The one engine of a device that is open.

    Args:
        device: where engines run.
        files: of an engine.
    """

    def __init__(self, device: Device, files: Callable[[EngineEntry], tuple[Path, ...]]) -> None:
        self._device, self._files = device, files
        self._next = dict[str, EngineEntry]()  # by the key of the one before
        self.ahead = Ahead()
        self._open: tuple[EngineEntry, Engine] | None = None
        self._kept = WeakSet[Recent[Any, Any]]()  # weakly: their owners hold this

    def take(self, whose: EngineEntry, open_engine: Callable[[], Engine]) -> Engine:
        """An engine, opened if it is not.

        Raises:
            SdxlTrtError: what `open_engine` raises; then none is open.
        """
        if self._open is None or self._open[0] is not whose:
            self.ahead.stop()
            if self._open is not None:
                self._next[self._open[0].key] = whose
            self._end()
            self._open = whose, open_engine()
            if whose.key in self._next:
                self.ahead.read(self._files(self._next[whose.key]))
        return self._open[1]

    def expect(self, *engines: EngineEntry) -> None:
        """Take it that they come in this order; what really follows on what is then learned."""
        for one, other in pairwise(engines):
            self._next.setdefault(one.key, other)

    def note(self, kept: Recent[Any, Any]) -> None:
        """Have what somebody keeps of the engine cleared before it is closed."""
        self._kept.add(kept)

    def leave(self, whose: EngineEntry) -> None:
        """Close an engine, if it is open."""
        if self._open and self._open[0] is whose:
            self._end()

    def _end(self) -> None:
        """Close what is open, and give back all that was for it."""
        if self._open is None:
            return
        self._device.trim()  # from now on nothing runs
        for kept in self._kept:
            kept.clear()
        self._kept.clear()
        (_, engine), self._open = self._open, None
        engine.close()
        del engine
        self._device.trim()


class SwappedEngine:
    """An engine that is open while it is its turn.

    Args:
        entry: what the manifest says of it.
        name: of the graph.
        turns: of all engines of the device.
        open_engine: opens it.
    """

    def __init__(self, entry: EngineEntry, name: str, turns: Turns, open_engine: Callable[[], Engine]) -> None:
        self.name = name
        self.inputs = {tensor.name: tensor for tensor in entry.inputs}
        self.outputs = {tensor.name: tensor for tensor in entry.outputs}
        self._entry, self._turns, self._open = entry, turns, open_engine

    def use(self, kept: Recent[Any, Any]) -> None:
        """Be open, in the place of what was open before.

        Raises:
            BundleError: a file fails its check.
            OutOfMemory: there is too little memory even so.
        """
        self._turns.take(self._entry, self._open)
        self._turns.note(kept)

    def bind(self, buffers: Mapping[str, Buffer]) -> Binding:
        """Put a buffer behind every input and output."""
        return self._turns.take(self._entry, self._open).bind(buffers)

    def close(self) -> None:
        """Release the engine, if it is open."""
        self._turns.leave(self._entry)
