"""One compilation is one process.

TensorRT takes twice a network's weights in memory, and may crash or stop; Linux kills what takes too much. In a process
of its own none of this ends the build without a word, its memory is free again for the next graph, and Ctrl-C is obeyed
at once. The process lives no longer than its parent.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

from sdxl_trt.engines.hooks import Report, Sink
from sdxl_trt.engines.source import Source
from sdxl_trt.engines.targets import TargetRequest
from sdxl_trt.engines.trt import compile_plan, short_of_memory, tells_of_memory
from sdxl_trt.errors import BuildError, SdxlTrtError
from sdxl_trt.processes import how_it_ended, start_apart
from sdxl_trt.progress import silent
from sdxl_trt.spec import GraphSpec, Profile

STALLED = 300.0
"""Seconds without progress and without processor time after which a compilation has stopped for good."""

_CHUNK = 2**24
"""Bytes of a plan in one message."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A graph to compile."""

    export: Path
    request: TargetRequest
    spec: GraphSpec
    profile: Profile


def compile_apart(task: Task, sink: Sink, report: Report) -> None:
    """Compile in a new process; the plan goes into `sink` and progress to `report` in this one.

    Raises:
        ExportError: the graph or its weights changed since they were exported.
        BuildError: the library refuses the graph; or its process crashed, stopped, or was killed.
        OSError: the sink raised it.
    """
    with tempfile.TemporaryFile() as log:
        process, pipe = start_apart(__name__, stdout=log, stderr=log)
        try:
            pipe.send(task)
            for message in _messages(pipe, process.pid):
                _take(message, sink, report)
        except (EOFError, ConnectionError):
            raise _died(task, process.wait(), log) from None
        except TimeoutError as error:
            raise _stopped(task, str(error)) from None
        finally:
            pipe.close()
            process.kill()
            process.wait()


def _messages(pipe: Connection, pid: int) -> Iterator[Any]:
    """What the process sends, until it has finished.

    Raises:
        EOFError: it ended before that.
        TimeoutError: it has neither sent a message nor used the processor for a while.
    """
    used, since = 0.0, time.monotonic()
    while True:
        if pipe.poll(1.0):
            message = pipe.recv()
            if message is None:
                return
            yield message
            since = time.monotonic()
        elif (now := _processor_seconds(pid)) > used + 0.1:
            used, since = now, time.monotonic()
        elif time.monotonic() > since + STALLED:
            raise TimeoutError(f"no progress and no processor time for {STALLED:.0f} seconds")


def _processor_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:  # it has just ended: the pipe will say so
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _take(message: Any, sink: Sink, report: Report) -> None:
    if isinstance(message, Exception):
        raise message
    if isinstance(message, bytes):
        sink.write(message)
    else:
        report(*message)


def _died(task: Task, status: int, log: BinaryIO) -> BuildError:
    log.seek(0)
    last = (log.read().decode(errors="replace").strip() or "it printed nothing").splitlines()[-1]
    got = f"{how_it_ended(status)}: {last}"
    what = f"{task.request.flavour.name} ended while it compiled {task.spec.name} for {task.request.name}"
    killed = -status == signal.SIGKILL  # Linux, when memory runs out, sends it to the process that takes most
    if killed or tells_of_memory(last):
        weights = Source(task.export, silent).weights_bytes(task.spec.name, task.request.flavour.precision)
        why = " (somebody killed it; for want of memory, Linux does)" if killed else ""
        return short_of_memory(what, got + why, weights)
    return BuildError(
        what,
        got=got,
        expected="a plan",
        fix="run the same command again: finished engines are kept; if it ends the same way, report this model",
    )


def _stopped(task: Task, got: str) -> BuildError:
    return BuildError(
        f"{task.request.flavour.name} stopped while it compiled {task.spec.name} for {task.request.name}",
        got=got,
        expected="a plan",
        fix="run the same command again: finished engines are kept",
    )


class _Sender:
    """Takes a plan, and sends it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data)
        for start in range(0, len(view), _CHUNK):
            self._pipe.send(bytes(view[start : start + _CHUNK]))
        return len(view)


def main(descriptor: int) -> None:
    """Compile the task that arrives through the pipe."""
    pipe = Connection(descriptor)
    task: Task = pipe.recv()
    threading.Thread(target=_end_with_parent, args=(pipe,), daemon=True).start()
    try:
        source = Source(task.export, silent)
        compile_plan(task.request, source, task.spec, task.profile, _Sender(pipe), lambda *steps: pipe.send(steps))
    except SdxlTrtError as error:
        pipe.send(error)
    else:
        pipe.send(None)


def _end_with_parent(pipe: Connection) -> None:
    """The parent sends nothing more: what comes is the end of the pipe."""
    try:
        pipe.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
