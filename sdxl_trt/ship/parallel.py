"""Several transfers at once, and one count of their bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from sdxl_trt.errors import TransferError
from sdxl_trt.progress import Progress

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(items: Sequence[T], action: Callable[[T], R], *, workers: int, cancel: Callable[[], None]) -> list[R]:
    """What an action returns for each item, in their order.

    Args:
        items: what there is to do.
        action: does it.
        workers: threads.
        cancel: called at the first failure, or Ctrl-C: has the actions that are going on fail soon.

    Raises:
        the first error that an action raised, when all have ended.
    """
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(action, item) for item in items]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            cancel()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]


class Meter:
    """Counts bytes of all transfers for one progress bar, and stops them.

    Args:
        progress: told of bytes.
        stage: in words.
        total: bytes in all.
    """

    def __init__(self, progress: Progress, stage: str, total: int) -> None:
        self._progress, self._stage, self._total = progress, stage, total
        self._lock = threading.Lock()
        self._stopped = False
        self.bytes = 0
        """That went through, those of attempts that failed included."""

    def counted(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass blocks on.

        Raises:
            TransferError: all was stopped.
        """
        for block in blocks:
            self.add(len(block))
            yield block

    def add(self, count: int) -> None:
        """Count bytes.

        Raises:
            TransferError: all was stopped.
        """
        if self._stopped:
            raise TransferError(f"{self._stage} was stopped")
        with self._lock:
            self.bytes += count
            # Not over before the last file has its name.
            self._progress(self._stage, min(self.bytes, self._total - 1), self._total)

    def stop(self) -> None:
        """Have all transfers fail at their next block."""
        self._stopped = True

    def finish(self) -> None:
        """All is done."""
        self._progress(self._stage, self._total, self._total)
