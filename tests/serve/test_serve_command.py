"""`sdxl-trt serve` as people and process managers start and end it: real processes, real signals."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from running import Process, serve_process
from served import wait_until

pytestmark = pytest.mark.timed

LONG = {"prompt": "an extremely red circle", "size": "192x192", "steps": 140}
SHORT = {"prompt": "an extremely red circle", "size": "64x64", "steps": 2}


@pytest.fixture
def process(wide_bundle: Path) -> Iterator[Process]:
    with serve_process("--bundle", wide_bundle, "--sizes", "64x64", "--queue", 4, "--max-body", 1) as one:
        yield one


def refused(*options: object) -> dict[str, Any]:
    """What a start that fails says, and its exit status."""
    done = subprocess.run(
        [sys.executable, "-m", "sdxl_trt", "serve", "--json", *map(str, options)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = done.stdout[done.stdout.index("{\n") :]
    return json.loads(lines) | {"status": done.returncode}


def test_it_answers_while_it_loads_and_finishes_what_runs_when_it_is_told_to_end(process: Process) -> None:
    assert process.get("/healthz").json()["status"] in ("starting", "ready")
    process.wait_until_ready()
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(process.post, "/v1/images/generations", json=LONG | {"seed": i}) for i in range(2)]
        wait_until(lambda: len(process.get("/admin/queue").json()["requests"]) == 2)
        process.send(signal.SIGTERM)
        wait_until(lambda: process.get("/readyz").status_code == 503)
        late = process.post("/v1/images/generations", json=SHORT)
        assert (late.status_code, "Retry-After" in late.headers) == (503, True)
        assert [each.result().status_code for each in asked] == [200, 200]
    assert process.ended() == 0
    assert process.other == []
    (drained,) = process.events("drained")
    assert drained["all_finished"] is True


def test_every_request_leaves_a_line_without_its_prompt(process: Process) -> None:
    process.wait_until_ready()
    process.post("/v1/images/generations", json=SHORT | {"user": "ann"}, headers={"X-Request-Id": "first"})
    process.post("/v1/images/generations", json=SHORT | {"size": "1x1"})
    process.post("/v1/images/generations", content=b"x" * 2**21)
    wait_until(lambda: len(process.events("request")) == 3)
    done, wrong, large = process.events("request")
    assert {
        "level": "info",
        "request_id": "first",
        "client": "127.0.0.1",
        "user": "ann",
        "method": "POST",
        "path": "/v1/images/generations",
        "status": 200,
        "pictures": 1,
        "evaluations": 2,
    }.items() <= done.items()
    assert set(done["stages"]) == {"queued", "encoding", "denoising", "decoding"}
    assert sum(done["stages"].values()) <= done["seconds"] + 0.01
    assert (wrong["status"], wrong["error"]) == (400, "UnsupportedSize")
    assert (large["status"], large["error"]) == (413, "HttpError")
    assert "circle" not in json.dumps(process.log)


def test_a_second_signal_ends_it_at_once(process: Process) -> None:
    process.wait_until_ready()
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(process.post, "/v1/images/generations", json=LONG)
        wait_until(lambda: bool(process.get("/admin/queue").json()["requests"]))
        process.send(signal.SIGINT)
        wait_until(lambda: bool(process.events("draining")))
        began = time.monotonic()
        process.send(signal.SIGINT)
        assert process.ended() == 128 + signal.SIGINT
        assert time.monotonic() - began < 1
        with pytest.raises(httpx2.HTTPError):
            asked.result()


def test_what_does_not_end_in_time_is_cancelled(wide_bundle: Path) -> None:
    options = ("--bundle", wide_bundle, "--no-warm-up", "--drain-seconds", 0.2)
    with serve_process(*options) as process, ThreadPoolExecutor() as pool:
        process.wait_until_ready()
        asked = pool.submit(process.post, "/v1/images/generations", json=LONG | {"n": 8})
        wait_until(lambda: bool(process.get("/admin/queue").json()["requests"]))
        process.send(signal.SIGTERM)
        assert asked.result().status_code == 499
        assert process.ended() == 0
        assert process.events("drained")[0]["all_finished"] is False


def test_sighup_loads_the_bundle_anew(process: Process) -> None:
    process.wait_until_ready()
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(process.post, "/v1/images/generations", json=LONG)
        wait_until(lambda: bool(process.get("/admin/queue").json()["requests"]))
        process.send(signal.SIGHUP)
        wait_until(lambda: len(process.events("loaded")) == 2)
        assert process.get("/readyz").status_code == 200
        assert asked.result().status_code == 200
    assert process.post("/v1/images/generations", json=SHORT).status_code == 200


def test_it_can_be_ended_while_it_loads(wide_bundle: Path) -> None:
    with serve_process("--bundle", wide_bundle, "--sizes", "192x192", "--sizes", "128x128") as process:
        wait_until(lambda: bool(process.events("load")))
        process.send(signal.SIGTERM)
        assert process.ended() == 0


def test_a_full_queue_and_keys_made_by_the_command(wide_bundle: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    made = [
        json.loads(
            subprocess.run(
                [sys.executable, "-m", "sdxl_trt", "serve", "--json", "--keys", keys, "--new-key", *options],
                capture_output=True,
                check=True,
            ).stdout
        )["key"]
        for options in (["alice"], ["ops", "--admin"])
    ]
    alice, ops = ({"Authorization": f"Bearer {key}"} for key in made)
    with serve_process(
        "--bundle", wide_bundle, "--no-warm-up", "--keys", keys, "--queue", 1, "--host", "0.0.0.0"
    ) as process:
        process.wait_until_ready()
        assert process.post("/v1/images/generations", json=SHORT).status_code == 401
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(process.post, "/v1/images/generations", json=LONG, headers=alice)
            wait_until(lambda: bool(process.get("/admin/queue", headers=ops).json()["requests"]))
            busy = process.post("/v1/images/generations", json=SHORT, headers=alice)
            assert (busy.status_code, int(busy.headers["Retry-After"]) >= 1) == (429, True)
            assert asked.result().status_code == 200
        process.send(signal.SIGTERM)
        assert process.ended() == 0
        assert {line["client"] for line in process.events("request") if line["status"] == 200} == {"alice", "ops"}


LOST = """
import sys, threading
from sdxl_trt.cli import main
from sdxl_trt.errors import GpuLost
from sdxl_trt.runtime.serve.stepper import Stepper

def lost(self, jobs):
    raise GpuLost("the GPU has fallen off the bus")

Stepper.step = lost
sys.argv[0] = "sdxl-trt"
main()
"""


def test_it_ends_when_no_device_is_left(wide_bundle: Path) -> None:
    with serve_process("--bundle", wide_bundle, "--no-warm-up", program=("-c", LOST)) as process:
        process.wait_until_ready()
        failed = process.post("/v1/images/generations", json=SHORT)
        assert failed.status_code == 503
        assert process.ended() == 1
        assert process.events("failed")[0]["what"] == "all devices failed"


def test_a_bundle_that_is_none_ends_it(tmp_path: Path) -> None:
    said = refused("--bundle", tmp_path, "--port", 0)
    assert (said["status"], said["error"]) == (1, "BundleError")


def test_https(wide_bundle: Path, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    options = ("--bundle", wide_bundle, "--no-warm-up", "--ssl-certfile", certificate, "--ssl-keyfile", key)
    with serve_process(*options) as process:
        assert process.base_url.startswith("https://127.0.0.1:")
        import ssl

        trusting = ssl.create_default_context(cafile=certificate)
        assert process.get("/healthz", verify=trusting).status_code == 200
    said = refused("--port", 0, "--ssl-certfile", key, "--ssl-keyfile", key)
    assert (said["status"], said["what"]) == (2, "the certificate cannot be used")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--host", "0.0.0.0"), "other hosts could ask"),
        (("--host", "::"), "other hosts could ask"),
        (("--host", "192.0.2.1", "--no-keys"), "cannot listen on 192.0.2.1"),
        (("--host", "nowhere.invalid"), "cannot listen on nowhere.invalid"),
        (("--keys", "absent"), "cannot be used as API keys"),
        (("--keys", "absent", "--no-keys"), "not both"),
        (("--new-key", "alice"), "needs a name and a file"),
        (("--device", "cpu", "--devices", "0"), "not both"),
        (("--sizes", "100"), "size"),
        (("--port", "70000"), "70000"),
    ],
)
def test_what_cannot_be_started(options: tuple[str, ...], part: str) -> None:
    said = refused(*options)
    assert said["status"] == 2
    assert part in said["what"]


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        said = refused("--port", other.getsockname()[1])
    assert (said["status"], said["got"]) == (2, "Address already in use")


def test_without_the_servers_libraries_the_command_says_how_to_get_them() -> None:
    program = (
        "import sys\nsys.modules['fastapi'] = None\nfrom sdxl_trt.cli import main\nsys.argv = ['x', 'serve']\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'sdxl-trt[serve]'" in done.stderr
