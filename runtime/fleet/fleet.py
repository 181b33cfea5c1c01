"""Several devices as one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sdxl_trt.demo_bundle import bundle_folder
from sdxl_trt.errors import UsageError
from sdxl_trt.policies import AUTO
from sdxl_trt.progress import Progress, silent
from sdxl_trt.runtime.checks import Pair
from sdxl_trt.runtime.fleet.messages import About, Call, Opening
from sdxl_trt.runtime.fleet.parts import Tally, divide, join
from sdxl_trt.runtime.fleet.process import Worker, gather
from sdxl_trt.runtime.host import gpu_number
from sdxl_trt.runtime.maker import Maker, was_closed
from sdxl_trt.runtime.request import Request
from sdxl_trt.runtime.results import Result
from sdxl_trt.runtime.steps import Callback
from sdxl_trt.runtime.warming import Shape


class Fleet(Maker):
    """A bundle on several devices of a host, each in a process of its own. The pictures of a request are divided.

    Each picture has its own generator and is the one that a `Pipeline` makes of its part, to the bit. Where a process
    fails the others stop, and its error is raised; where one ends, all do, and this is closed.

    Args:
        workers: processes that have loaded it.
        about: what each has.
    """

    def __init__(self, workers: list[Worker], about: About) -> None:
        self._workers, self._lock = workers, threading.Lock()
        self.model, self.target, self.refiner, self.memory = about.model, about.target, about.refiner, about.memory

    @classmethod
    def load(
        cls,
        bundle: str | Path,
        devices: Sequence[str],
        *,
        threads: int | None = None,
        refiner: bool = True,
        memory: str = AUTO,
    ) -> Fleet:
        """Open a bundle on each of these devices.

        Args:
            bundle: its folder; or 'demo', 'demo-turbo' or 'demo-refiner', which are built on first use.
            devices: 'cuda:0', 'cuda:1' and so on, each once; 'cpu' as often as there shall be processes on it.
            threads: that one engine may use on the processor; when not given, those that this process may run on are
                divided.
            refiner: open the bundle's refiner too, where there is one.
            memory: as of `Pipeline.load`; 'auto' is decided for each device.

        Raises:
            UsageError: no devices, a GPU twice, no such device, or `threads` is not positive.
            SdxlTrtError: what `Pipeline.load` raises, of the device that was first to fail.
            RunError: a process ended.
        """
        share = max(1, len(os.sched_getaffinity(0)) // max(1, _check(devices).count(None)))
        folder = bundle_folder(bundle)
        each = share if threads is None else threads
        openings = [
            Opening(bundle=folder, device=device, threads=each, refiner=refiner, memory=memory) for device in devices
        ]
        workers = list[Worker]()
        try:
            for device in devices:
                workers.append(Worker(device))
            about = gather(workers, openings, lambda *_: None, grace=0.0)
        except BaseException:
            _end(workers)
            raise
        return cls(workers, about[0])

    def run(
        self,
        request: Request,
        *,
        noise: NDArray[Any] | None = None,
        output: str = "image",
        progress: Progress = silent,
        callback: Callback | None = None,
    ) -> Result:
        """Make the pictures of a request; see `Maker.run`. Steps of several devices come in any order."""
        parts = divide(request, noise, len(self._opened()))
        calls = [
            Call(
                method="run",
                arguments=(part.request,),
                options={"noise": part.noise, "output": output},
                told=True,
                called=callback is not None,
            )
            for part in parts
        ]
        return join(self._gather(calls, Tally(parts, progress, callback)))

    def warm_up(
        self, sizes: Iterable[Pair], batches: Iterable[int] = (1,), *, chunks: Iterable[int] = (1,)
    ) -> dict[Shape, float]:
        """Prepare what requests of these shapes need, on every device; see `Maker.warm_up`.

        Args:
            sizes, chunks: as there.
            batches: pictures that one device gets of a request.

        Returns:
            The seconds of the slowest device.
        """
        arguments = (list(sizes), list(batches))
        each = self._on_all("warm_up", *arguments, chunks=list(chunks))
        return {shape: max(seconds[shape] for seconds in each) for shape in each[0]}

    def load_textual_inversion(self, path: str | Path, token: str | None = None) -> str:
        """Read a learned word; see `Maker.load_textual_inversion`."""
        return str(self._on_all("load_textual_inversion", path, token)[0])

    def close(self) -> None:
        """End all processes; see `Maker.close`."""
        with self._lock:
            self._end()

    def _on_all(self, method: str, *arguments: Any, **options: Any) -> list[Any]:
        call = Call(method=method, arguments=arguments, options=options)
        return self._gather([call] * len(self._opened()), Tally([], silent, None))

    def _gather(self, calls: Sequence[Call], tally: Tally) -> list[Any]:
        with self._lock:
            workers = self._opened()
            try:
                return gather(workers, calls, tally.hear)
            except BaseException:
                if not all(worker.usable for worker in workers):
                    self._end()
                raise

    def _opened(self) -> list[Worker]:
        if not self._workers:
            raise was_closed(Fleet)
        return self._workers

    def _end(self) -> None:
        _end(self._workers)
        self._workers = []


def _check(devices: Sequence[str]) -> list[int | None]:
    """The GPUs that devices are; None for the processor."""
    numbers = [] if isinstance(devices, str) else [gpu_number(device) for device in devices]
    gpus = [number for number in numbers if number is not None]
    if not numbers or len(set(gpus)) < len(gpus):
        raise UsageError(
            "these devices cannot be used",
            got=repr(devices),
            expected="at least one, and each GPU once",
            fix="devices=['cuda:0', 'cuda:1']",
        )
    return numbers


def _end(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.leave()
    for worker in workers:
        worker.end()
