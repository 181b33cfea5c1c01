"""What HTTP adds: `sdxl-trt serve` in a process of its own, asked over loopback, beside the pipeline in this one.

Both make the same pictures of one step in turns. The server's answer is a PNG file in JSON, over a connection that
stays open; the pipeline's is a picture in memory.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks.serving.load import Asked, Size
from benchmarks.serving.ways import OneAtATime, request_of
from sdxl_trt.bench.rows import Row

PAIRS: Final = 200
"""Pictures of each side that count."""
UNCOUNTED: Final = 5
"""Before them."""
READY_SECONDS, END_SECONDS = 120.0, 30.0


def measure_overhead(bundle: Path, size: Size, pairs: int = PAIRS) -> list[Row]:
    """Both sides' times, and the differences of pairs.

    Args:
        bundle: the demo model's.
        size: of pictures.
        pairs: of pictures, one from each side.
    """
    way, asked = OneAtATime(bundle, [size]), Asked(steps=1, guided=False, size=size)
    ours, served = list[float](), list[float]()
    with serving(bundle, size) as address:
        connection = http.client.HTTPConnection(address, timeout=READY_SECONDS)
        for number in range(UNCOUNTED + pairs):
            served.append(_seconds(partial(ask, connection, asked, number)))
            ours.append(_seconds(partial(way.make, asked, number)))
        connection.close()
    counted = slice(UNCOUNTED, None)
    added = [a - b for a, b in zip(served, ours, strict=True)]
    return [
        Row(who=who, what="a picture of one step", unit="s", samples=tuple(samples[counted]))
        for who, samples in (("pipeline", ours), ("server", served), ("server − pipeline", added))
    ]


@contextmanager
def serving(bundle: Path, size: Size) -> Iterator[str]:
    """A server that is ready: its host and port. Ends with the block."""
    width, height = size
    command = [sys.executable, "-m", "sdxl_trt", "serve", "--bundle", str(bundle), "--port", "0", "--json"]
    command += ["--sizes", f"{width}x{height}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None  # it is a pipe
            address = urlsplit(json.loads(server.stdout.readline())["address"]).netloc
            _wait_until_ready(address)
            yield address
        finally:
            server.terminate()
            server.wait(END_SECONDS)


def ask(connection: http.client.HTTPConnection, asked: Asked, number: int) -> dict[str, Any]:
    """Have the server make one picture."""
    request = request_of(asked, number)
    body = {
        "prompt": request.prompt,
        "steps": request.steps,
        "guidance": request.guidance,
        "seed": request.seed,
        "size": "x".join(map(str, asked.size)),
    }
    connection.request("POST", "/v1/images/generations", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer: dict[str, Any] = json.loads(response.read())
    if response.status != 200:
        raise RuntimeError(f"the server answered {response.status}: {answer}")
    return answer


def _wait_until_ready(address: str) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        connection = http.client.HTTPConnection(address, timeout=READY_SECONDS)
        connection.request("GET", "/readyz")
        if connection.getresponse().status == 200:
            return
        time.sleep(0.1)
    raise TimeoutError(f"the server was not ready after {READY_SECONDS:g} s")


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
