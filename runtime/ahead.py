"""Files of the engine that comes next, brought from disk into the system's page cache while another one runs.

Memory that engines run in is full then: that is why they take turns. The host's is not, and what its cache holds it
gives up for whoever needs it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from threading import Event, Thread

PIECE = 2**25
"""Bytes that are asked for at once: the time that `stop` waits for."""


class Ahead:
    """Reads files in the background, one set at a time."""

    def __init__(self) -> None:
        self._stopped = Event()
        self._thread: Thread | None = None

    def read(self, paths: Iterable[Path]) -> None:
        """Begin with these files; what was begun before is left."""
        self.stop()
        self._stopped = Event()
        self._thread = Thread(target=_read, args=(tuple(paths), self._stopped), name="sdxl-trt-ahead", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read no further: whoever opens the engine now reads the rest."""
        if self._thread is not None:
            self._stopped.set()
            self._thread.join()
            self._thread = None


def _read(paths: tuple[Path, ...], stopped: Event) -> None:
    """Have the system read the files. What cannot be read is refused, with its reason, when the engine is opened."""
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            for start in range(0, os.fstat(descriptor).st_size, PIECE):
                if stopped.is_set():
                    return
                os.posix_fadvise(descriptor, start, PIECE, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)
