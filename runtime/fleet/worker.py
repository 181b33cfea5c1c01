"""One process of a fleet: a pipeline on one device, that does what comes through the pipe.

It ends with the process that started it, at once and whatever it is doing.
"""

from __future__ import annotations

import functools
import os
import pickle
import queue
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any

from sdxl_trt.errors import RunError, SdxlTrtError
from sdxl_trt.runtime.fleet.messages import About, Call, Done, Failed, Opening, SentStep, Stop, StoppedError, Told
from sdxl_trt.runtime.pipeline import Pipeline
from sdxl_trt.runtime.steps import Step


class Line:
    """The worker's end of the pipe. What arrives while a call is under way is seen at once."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._stopped = threading.Event()
        self._work = queue.SimpleQueue[Any]()
        threading.Thread(target=self._listen, daemon=True).start()

    def next(self) -> Any:
        """The next thing to do."""
        return self._work.get()

    def answer(self, work: Any) -> None:
        """Do it, and send what comes of it."""
        result: Done | Failed
        try:
            result = Done(value=work())
        except Exception as error:
            result = Failed(error=_portable(error))
        self._pipe.send(result)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Send progress; ends the call where that is asked for."""
        if self._stopped.is_set():
            raise StoppedError
        self._pipe.send(Told(stage=stage, done=done, total=total))

    def step(self, step: Step) -> None:
        """Send a step."""
        self._pipe.send(SentStep.of(step))

    def _listen(self) -> None:
        try:
            while True:
                message = self._pipe.recv()
                if isinstance(message, Stop):
                    self._stopped.set()
                else:  # it comes after the answer to the last one
                    self._stopped.clear()
                    self._work.put(message)
        except (EOFError, OSError):
            os._exit(1)


def _portable(error: Exception) -> Exception:
    """An error that can be sent; one that nobody meant says where it comes from."""
    if not isinstance(error, SdxlTrtError | StoppedError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 (its own)
    except Exception:
        return RunError("a worker failed", got=repr(error), fix="report this message")
    return error


def main(descriptor: int) -> None:
    """Load what the first message says, then do one call after the other."""
    line = Line(Connection(descriptor))
    opening: Opening = line.next()
    pipelines = list[Pipeline]()

    def load() -> About:
        pipeline = Pipeline.load(
            opening.bundle,
            device=opening.device,
            threads=opening.threads,
            refiner=opening.refiner,
            memory=opening.memory,
        )
        pipelines.append(pipeline)
        return About(model=pipeline.model, target=pipeline.target, refiner=pipeline.refiner, memory=pipeline.memory)

    line.answer(load)
    for pipeline in pipelines:
        while True:
            line.answer(functools.partial(_do, line.next(), pipeline, line))


def _do(call: Call, pipeline: Pipeline, line: Line) -> Any:
    heard: dict[str, Any] = {"progress": line.progress} if call.told else {}
    if call.called:
        heard["callback"] = line.step
    return getattr(pipeline, call.method)(*call.arguments, **call.options, **heard)


if __name__ == "__main__":
    main(int(sys.argv[1]))
