"""OpenTelemetry, where it is configured: a span for each request, and one for each stage that it went through.

Where spans go is said by `--otlp`, or by OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT and the rest). What
a client's `traceparent` says is the parent (W3C, "Trace Context").
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from starlette.types import Scope

from sdxl_trt.libraries import require
from sdxl_trt.runtime.serve.job import STAGES, Job
from sdxl_trt.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PATH = "/v1/traces"


def open_tracing(endpoint: str | None) -> Tracing | None:
    """Spans over OTLP; None where nothing says where to.

    Args:
        endpoint: of a collector, such as http://127.0.0.1:4318; None: what the environment says.

    Raises:
        FlavourUnavailable: the packages are missing.
    """
    if endpoint is None and not any(os.environ.get(name) for name in VARIABLES):
        return None
    exporter = require("opentelemetry.exporter.otlp.proto.http.trace_exporter", "send traces")
    url = None if endpoint is None else endpoint.rstrip("/").removesuffix(_PATH) + _PATH
    return Tracing(exporter.OTLPSpanExporter(endpoint=url))


class Tracing:
    """Spans of requests.

    Args:
        exporter: where they go.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        name = os.environ.get("OTEL_SERVICE_NAME", "sdxl-trt")
        self._provider = TracerProvider(resource=Resource.create({"service.name": name}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("sdxl_trt.serve", __version__)

    def begin(self, scope: Scope) -> None:
        """A request came."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        scope["state"]["span"] = self._tracer.start_span(
            scope["method"],
            context=TraceContextTextMapPropagator().extract(headers),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": scope["method"],
                "url.path": scope["path"],
                "sdxl_trt.request_id": scope["state"]["request_id"],
            },
        )

    def end(self, scope: Scope, route: str, status: int) -> None:
        """A request was answered.

        Args:
            scope: of the request.
            route: its path, as it was declared.
            status: of the answer.
        """
        from opentelemetry.trace import Status, StatusCode

        span, job = scope["state"]["span"], scope["state"].get("job")
        if job is not None:
            self._stages(span, job)
        span.update_name(f"{scope['method']} {route}")
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def _stages(self, span: Span, job: Job) -> None:
        """Stages follow one another; the clock that they are noted by is not that of the day."""
        from opentelemetry.trace import set_span_in_context

        start = time.time() - (time.monotonic() - job.arrived)
        for stage in STAGES:
            seconds = job.stages.get(stage)
            if seconds is not None:
                child = self._tracer.start_span(stage, set_span_in_context(span), start_time=round(start * 1e9))
                start += seconds
                child.end(round(start * 1e9))

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
