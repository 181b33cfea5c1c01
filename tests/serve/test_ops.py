"""What orchestrators, Prometheus and operators ask for."""

from __future__ import annotations

import http.server
import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from running import Running, running
from served import open_service, wait_until

from sdxl_trt.runtime.pipeline import Pipeline
from sdxl_trt.runtime.serve.http.context import Context, Settings
from sdxl_trt.runtime.serve.http.metrics import Metrics
from sdxl_trt.runtime.serve.limits import Limits
from sdxl_trt.runtime.serve.service import Service, Setup

LONG = {"prompt": "a red circle", "size": "192x192", "steps": 290}
SHORT = {"prompt": "a red circle", "size": "64x64", "steps": 2}


def counted(server: Running) -> dict[tuple[str, ...], float]:
    """Samples by name and the values of labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(server.get("/metrics").text)
        for sample in family.samples
    }


@pytest.fixture
def one(wide_bundle: Path) -> Iterator[Running]:
    """A server of a test's own, two devices."""
    service = open_service(wide_bundle, devices=("cpu", "cpu"), limits=Limits(steps=300))
    with running(Context(service=service, settings=Settings(pull=True))) as server:
        yield server
    service.drain(20)


def test_a_server_is_ready_once_its_bundle_is_warm_and_no_more_when_it_drains(wide_bundle: Path) -> None:
    setup = Setup(
        open=lambda path, device: Pipeline.load(path, device=device, threads=1), devices=["cpu"], sizes=[(64, 64)]
    )
    service = Service(setup, Limits(), Metrics())
    with running(Context(service=service, settings=Settings())) as server:
        assert server.get("/healthz").status_code == 200
        waiting = server.get("/readyz")
        assert (waiting.status_code, waiting.json()) == (503, {"status": "starting"})
        refused = server.post("/v1/images/generations", json=SHORT)
        assert refused.status_code == 503
        assert "readyz" in refused.json()["error"]["message"]
        service.load(wide_bundle)
        assert server.get("/readyz").status_code == 200
        assert server.post("/v1/images/generations", json=SHORT).status_code == 200
        with ThreadPoolExecutor() as pool:
            running_one = pool.submit(server.post, "/v1/images/generations", json=SHORT | {"steps": 120})
            wait_until(lambda: bool(service.jobs()))
            drained = pool.submit(service.drain, 30)
            wait_until(lambda: service.state == "draining")
            assert server.get("/readyz").json() == {"status": "draining"}
            late = server.post("/v1/images/generations", json=SHORT)
            assert (late.status_code, late.headers["Retry-After"]) == (503, "5")
            assert running_one.result().status_code == 200
            assert drained.result()


def test_metrics_count_requests_steps_rows_and_stages(idle: Running) -> None:
    before = counted(idle)
    assert idle.post("/v1/images/generations", json=SHORT | {"n": 3, "steps": 4}).status_code == 200
    assert idle.post("/v1/images/generations", json={}).status_code == 400
    assert idle.get("/nowhere").status_code == 404
    after = counted(idle)
    grown = {key: after[key] - before.get(key, 0.0) for key in after}
    assert grown["sdxl_trt_requests_total", "done"] == 1
    assert grown["sdxl_trt_pictures_total",] == 3
    assert grown["sdxl_trt_step_seconds_count",] == 4
    assert grown["sdxl_trt_step_rows_sum",] == 4 * 6
    assert (after["sdxl_trt_slots_in_use",], after["sdxl_trt_rows_in_use",]) == (3, 6)
    assert (after["sdxl_trt_slots",], after["sdxl_trt_rows",], after["sdxl_trt_devices",]) == (8, 16, 1)
    for stage in ("queued", "encoding", "denoising", "decoding", "whole"):
        assert grown["sdxl_trt_stage_seconds_count", stage] == 1
    parts = sum(grown["sdxl_trt_stage_seconds_sum", each] for each in ("queued", "encoding", "denoising", "decoding"))
    assert grown["sdxl_trt_stage_seconds_sum", "whole"] == pytest.approx(parts)
    assert grown["sdxl_trt_http_requests_total", "POST", "/v1/images/generations", "200"] == 1
    assert grown["sdxl_trt_http_requests_total", "POST", "/v1/images/generations", "400"] == 1
    assert grown["sdxl_trt_http_requests_total", "GET", "other", "404"] == 1
    assert after["process_resident_memory_bytes",] > 1e7


def test_the_queue_shows_requests_and_one_of_them_can_be_taken_back(idle: Running) -> None:
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(
            idle.post, "/v1/images/generations", json=LONG | {"n": 2}, headers={"X-Request-Id": "mine-1"}
        )
        wait_until(lambda: any(job.progress[0] for job in idle.context.service.jobs()))
        shown = idle.get("/admin/queue").json()
        (request,) = shown["requests"]
        assert {"id": "mine-1", "client": "127.0.0.1", "stage": "denoising", "pictures": 2, "of": 580}.items() <= (
            request.items()
        )
        assert 0 < request["evaluations"] < 580
        assert shown["seconds_left"] > 0
        counts = counted(idle)
        assert (counts["sdxl_trt_queue_depth",], counts["sdxl_trt_requests_running",]) == (0, 1)
        cancelled = idle.delete("/admin/requests/mine-1")
        assert cancelled.json() == {"id": "mine-1", "cancelled": True}
        answer = asked.result()
    assert answer.status_code == 499
    assert answer.json()["error"]["code"] == "cancelled"
    assert answer.headers["X-Request-Id"] == "mine-1"
    assert idle.delete("/admin/requests/mine-1").status_code == 404
    assert idle.get("/admin/queue").json()["requests"] == []


def test_ids_of_requests_are_the_clients_where_they_are_safe_and_free(idle: Running) -> None:
    assert idle.get("/healthz", headers={"X-Request-Id": "a.b:C_1-2"}).headers["X-Request-Id"] == "a.b:C_1-2"
    for unsafe in ("x" * 65, "a b", "ä".encode(), "{}"):
        made = idle.get("/healthz", headers={"X-Request-Id": unsafe}).headers["X-Request-Id"]
        assert len(made) == 16
        assert int(made, 16) >= 0
    with ThreadPoolExecutor() as pool:
        many = list(
            pool.map(
                lambda _: idle.post("/v1/images/generations", json=SHORT, headers={"X-Request-Id": "twice"}), range(4)
            )
        )
    assert [each.status_code for each in many] == [200] * 4
    assert len({each.headers["X-Request-Id"] for each in many}) >= 2


def test_a_bundle_is_loaded_anew_without_dropping_a_request(one: Running) -> None:
    first = one.context.service.room
    with ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(one.post, "/v1/images/generations", json=SHORT | {"steps": 10 + 5 * i, "seed": i})
            for i in range(16)
        ]
        done = one.post("/admin/reload?wait=true")
        asked += [pool.submit(one.post, "/v1/images/generations", json=SHORT | {"seed": i}) for i in range(4)]
        answers = [each.result() for each in asked]
    assert done.status_code == 200, done.text
    assert done.json()["last"]["state"] == "done"
    assert done.json()["model"] == "sdxl-shapes"
    assert [each.status_code for each in answers] == [200] * 20
    assert [each.json()["data"][0]["seed"] for each in answers[:16]] == list(range(16))
    assert one.context.service.room is not first
    wait_until(lambda: all(worker.join(0) for worker in first.workers))


def test_a_bundle_that_cannot_be_loaded_changes_nothing(one: Running, tmp_path: Path) -> None:
    def load(name: str | None) -> None:
        one.context.service.load(Path(name or "absent"))

    with running(Context(service=one.context.service, settings=Settings(pull=True), load=load)) as server:
        failed = server.post("/admin/reload?wait=true", json={"bundle": str(tmp_path)})
        assert failed.status_code == 422
        assert failed.json()["last"]["error"]["error"] == "BundleError"
        assert server.get("/admin/reload").json()["last"]["state"] == "failed"
        again = server.post("/admin/reload")
        assert (again.status_code, again.json()["number"]) == (202, 2)
        assert server.post("/v1/images/generations", json=SHORT).status_code == 200


def test_two_bundles_are_not_loaded_at_a_time(one: Running) -> None:
    go_on = threading.Event()
    with running(Context(service=one.context.service, settings=Settings(), load=lambda _: go_on.wait(20))) as server:
        assert server.post("/admin/reload").status_code == 202
        second = server.post("/admin/reload")
        assert (second.status_code, second.json()["what"]) == (409, "a bundle is being loaded")
        go_on.set()
        wait_until(lambda: server.get("/admin/reload").json()["last"]["state"] == "done")


def test_bundles_are_named_only_where_that_is_allowed(idle: Running) -> None:
    refused = idle.post("/admin/reload", json={"bundle": "/etc"})
    assert refused.status_code == 403
    assert "--allow-pull" in refused.json()["fix"]
    assert idle.post("/admin/reload", json={"path": "/etc"}).json()["what"] == "unknown field path"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/admin/queue", {"Host": "rebound.example"}, 403),
        ("/admin/queue", {"X-Forwarded-For": "203.0.113.7"}, 403),
        ("/admin/queue", {"Origin": "http://evil.example"}, 403),
        ("/v1/models", {"Origin": "null"}, 403),
        ("/v1/models", {"Host": "sdxl.internal", "Origin": "http://sdxl.internal"}, 200),
        ("/admin/queue", {"Host": "localhost:99"}, 200),
        ("/admin/queue", {"Host": "[::1]:99"}, 200),
    ],
)
def test_without_keys_operators_are_on_this_host_and_pages_are_this_servers(
    idle: Running, path: str, headers: dict[str, str], status: int
) -> None:
    assert idle.get(path, headers=headers).status_code == status


@pytest.mark.parametrize(("path", "key"), [("/v1/x", "error"), ("/sdapi/v1/x", "detail"), ("/x", "what")])
def test_paths_and_methods_that_are_not_there(idle: Running, path: str, key: str) -> None:
    answer = idle.get(path)
    assert answer.status_code == 404
    assert key in answer.json()
    wrong = idle.get("/v1/images/generations")
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "POST")


def test_an_error_that_nobody_foresaw_is_told_without_its_text(
    idle: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a red circle")

    monkeypatch.setattr(idle.context.service, "submit", broken)
    answer = idle.post("/v1/images/generations", json=SHORT)
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "circle" not in answer.text
    (record,) = [each for each in caplog.records if each.getMessage() == "failure"]
    assert record.fields["request_id"] == answer.headers["X-Request-Id"]
    assert record.fields["error"] == "ZeroDivisionError"
    assert "circle" not in str(record.fields)


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """An OTLP collector: where it listens, and the spans it got."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans = list[Any]()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            import gzip

            body = self.rfile.read(int(self.headers["Content-Length"]))
            body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            assert self.path == "/v1/traces"
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}", spans
        listening.shutdown()


def test_traces_hold_the_stages_under_the_clients_span(one: Running, collector: tuple[str, list[Any]]) -> None:
    endpoint, spans = collector
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    began = time.time_ns()
    with running(Context(service=one.context.service, settings=Settings(otlp=endpoint))) as server:
        assert server.post("/v1/images/generations", json=SHORT, headers={"traceparent": parent}).status_code == 200
    named = {span.name: span for span in spans}
    assert set(named) == {"POST /v1/images/generations", "queued", "encoding", "denoising", "decoding"}
    whole = named.pop("POST /v1/images/generations")
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == (parent[3:35], parent[36:52])
    assert all(span.parent_span_id == whole.span_id for span in named.values())
    order = [named[stage] for stage in ("queued", "encoding", "denoising", "decoding")]
    assert all(a.end_time_unix_nano <= b.start_time_unix_nano + 1000 for a, b in itertools.pairwise(order))
    assert began < order[0].start_time_unix_nano < order[-1].end_time_unix_nano <= whole.end_time_unix_nano + 10**6
    attributes = {each.key: each.value for each in whole.attributes}
    assert attributes["http.response.status_code"].int_value == 200
    assert not any("circle" in str(each) for each in spans)
