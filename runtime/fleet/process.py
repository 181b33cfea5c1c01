"""The processes of a fleet, as seen from the one that has it."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any

from sdxl_trt.errors import RunError, UsageError
from sdxl_trt.processes import how_it_ended, start_apart
from sdxl_trt.runtime.fleet.messages import Call, Done, Failed, Opening, SentStep, Stop, Told

GRACE = 30.0
"""Seconds that a worker has to stop, which it does within a step; then it is killed."""
_EXIT = 5.0
"""Seconds that a process has to end by itself."""
_STDERR = 2

Hear = Callable[[int, Told | SentStep], None]
"""Called with what a worker tells while it works, and the worker's number."""


class Worker:
    """A process that is told what to do, and answers."""

    def __init__(self, device: str) -> None:
        self.device, self.usable = device, True
        # What it prints is for people: standard output is the caller's.
        self._process, self.pipe = start_apart("sdxl_trt.runtime.fleet.worker", stdout=_STDERR)

    def send(self, message: Opening | Call | Stop) -> None:
        """Send it something to do, or to stop.

        Raises:
            UsageError: what was given for a call cannot be sent to another process.
            RunError: it has ended.
        """
        try:
            self.pipe.send(message)
        except OSError:
            raise self._ended() from None
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            raise UsageError(
                "this request cannot be sent to a worker",
                got=str(error),
                expected="values, arrays, files and pictures",
                fix="give pictures as pathlib.Path, bytes, numpy arrays or Pillow images",
            ) from error

    def receive(self) -> Any:
        """The next message; waits for it.

        Raises:
            RunError: it has ended.
        """
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            raise self._ended() from None

    def leave(self) -> None:
        """Have it end, without waiting for that."""
        self.usable = False
        self.pipe.close()

    def end(self, patience: float = _EXIT) -> str:
        """Wait until it has ended, and kill it after so many seconds; how it did, in words."""
        self.usable = False
        for seconds in (patience, _EXIT):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return how_it_ended(self._process.wait(seconds))
            self._process.kill()
        return "a process that does not even end when it is killed"

    def _ended(self) -> RunError:
        return RunError(
            f"the worker on {self.device} has ended",
            got=self.end(),
            expected="a process that goes on answering",
            fix="load the fleet again; if it was killed, look for want of memory (dmesg), "
            "else at what it printed on standard error",
        )


def gather(
    workers: Sequence[Worker], messages: Sequence[Opening | Call], hear: Hear, *, grace: float = GRACE
) -> list[Any]:
    """Have each worker do something, all at once; what came of it, in their order.

    Args:
        workers: as many as there are messages, or more.
        messages: for one each.
        hear: is told what they tell meanwhile.
        grace: seconds that they have to stop when one fails, before they are killed.

    Raises:
        Exception: the first that one of them met, or that `hear` raised; the others have been stopped.
    """
    busy = dict[Any, int]()
    results: list[Any] = [None] * len(messages)
    try:
        for number, message in enumerate(messages):
            workers[number].send(message)
            busy[workers[number].pipe] = number
        while busy:
            for pipe in wait(list(busy)):
                number = busy[pipe]
                match workers[number].receive():
                    case Done(value=value):
                        results[number] = value
                        del busy[pipe]
                    case Failed(error=error):
                        del busy[pipe]
                        raise error
                    case told:
                        hear(number, told)
    except BaseException:
        _stop([workers[number] for number in busy.values()], grace)
        raise
    return results


def _stop(workers: list[Worker], grace: float) -> None:
    """Have workers end their calls, and wait for that; those that do not, and all if this is cut short, are killed."""
    deadline = time.monotonic() + grace
    try:
        for worker in workers:
            with contextlib.suppress(RunError):
                worker.send(Stop())
        for worker in workers:
            with contextlib.suppress(RunError):
                while worker.pipe.poll(max(deadline - time.monotonic(), 0.0)):
                    if isinstance(worker.receive(), Done | Failed):
                        workers = [each for each in workers if each is not worker]
                        break
    finally:
        for worker in workers:
            worker.end(0.0)
