"""What is counted, as Prometheus reads it. Its names begin with sdxl_trt_, but for those of the process itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily

from sdxl_trt.errors import GpuLost, UsageError
from sdxl_trt.runtime.serve.job import QUEUED, STAGES, Cancelled, DeadlinePassed, Job
from sdxl_trt.runtime.serve.limits import NotServing

if TYPE_CHECKING:
    from sdxl_trt.runtime.serve.service import Service
    from sdxl_trt.runtime.serve.worker import Worker

_STEP_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_STAGE_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600)
_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_OUTCOMES = ("done", "cancelled", "deadline", "refused", "failed")


class Metrics:
    """Counts, as the service's observer and of the server. From any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._ended = Counter(
            "sdxl_trt_requests", "Requests that were taken, by how they ended.", ["outcome"], registry=self._registry
        )
        self._answered = Counter(
            "sdxl_trt_http_requests", "Answers over HTTP.", ["method", "route", "status"], registry=self._registry
        )
        self._pictures = Counter("sdxl_trt_pictures", "Pictures that were made.", registry=self._registry)
        self._stages = Histogram(
            "sdxl_trt_stage_seconds",
            "Time that requests spent in each stage; whole: from their coming to their end.",
            ["stage"],
            buckets=_STAGE_SECONDS,
            registry=self._registry,
        )
        self._step = Histogram(
            "sdxl_trt_step_seconds", "Time of a step.", buckets=_STEP_SECONDS, registry=self._registry
        )
        self._occupancy = Histogram(
            "sdxl_trt_step_rows", "Rows of the UNet's input in a step.", buckets=_ROWS, registry=self._registry
        )
        self._slots_now = Gauge("sdxl_trt_slots_in_use", "Pictures in the last step.", registry=self._registry)
        self._rows_now = Gauge("sdxl_trt_rows_in_use", "Rows in the last step.", registry=self._registry)
        for outcome in _OUTCOMES:
            self._ended.labels(outcome)
        for stage in (*STAGES, "whole"):
            self._stages.labels(stage)

    def watch(self, service: Service) -> None:
        """Tell a service's queue, room and memory too."""
        self._registry.register(_ServiceCollector(service))

    def stepped(self, pictures: int, rows: int, seconds: float) -> None:
        """A step was made."""
        self._step.observe(seconds)
        self._occupancy.observe(rows)
        self._slots_now.set(pictures)
        self._rows_now.set(rows)

    def ended(self, job: Job, error: BaseException | None) -> None:
        """A request is done, or failed."""
        self._ended.labels(_outcome(error)).inc()
        if error is None:
            self._pictures.inc(len(job.all))
        for stage, seconds in job.stages.items():
            self._stages.labels(stage).observe(seconds)
        self._stages.labels("whole").observe(sum(job.stages.values()))

    def answered(self, method: str, route: str, status: int) -> None:
        """A request over HTTP was answered.

        Args:
            method: of HTTP.
            route: its path, as it was declared.
            status: of the answer; 0: none was begun.
        """
        self._answered.labels(method, route, status).inc()

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        return generate_latest(self._registry)


class _ServiceCollector:
    """What is looked up when it is asked for."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """A family for each."""
        jobs = self._service.jobs()
        waiting = sum(job.stage == QUEUED for job in jobs)
        workers = self._workers()
        slots = sum(worker.pipeline.target.profile.slots.max for worker in workers)
        for name, text, value in (
            ("queue_depth", "Requests that wait to be begun.", waiting),
            ("requests_running", "Requests that were begun.", len(jobs) - waiting),
            ("queue_seconds", "Until all requests should be done.", self._service.seconds_left()),
            ("slots", "Pictures that a step takes at most, on all devices.", slots),
            ("rows", "Rows that a step takes at most, on all devices.", 2 * slots),
            ("devices", "Devices that did not fail.", len(workers)),
        ):
            yield GaugeMetricFamily(f"sdxl_trt_{name}", text, value)
        memory = GaugeMetricFamily(
            "sdxl_trt_device_memory_bytes", "Of a GPU: allocated by this, free and total.", labels=["device", "kind"]
        )
        for worker in workers:
            with contextlib.suppress(GpuLost):  # it failed just now
                used = worker.pipeline.device_memory()
                for kind in ("allocated", "free", "total") if used else ():
                    memory.add_metric([worker.name, kind], getattr(used, kind))
        yield memory

    def _workers(self) -> list[Worker]:
        try:
            return self._service.room.alive()
        except NotServing:
            return []


def _outcome(error: BaseException | None) -> str:
    kinds = ((Cancelled, "cancelled"), (DeadlinePassed, "deadline"), ((UsageError, NotServing), "refused"))
    if error is None:
        return "done"
    return next((name for kind, name in kinds if isinstance(error, kind)), "failed")
