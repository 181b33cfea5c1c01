"""Servers for tests: uvicorn in a thread of this process, or `sdxl-trt serve` as one of its own."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI
from served import wait_until

from sdxl_trt.runtime.serve.http.app import create_app
from sdxl_trt.runtime.serve.http.connections import guarded
from sdxl_trt.runtime.serve.http.context import Context


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that answers."""

    base_url: str
    context: Context
    app: FastAPI

    @property
    def address(self) -> tuple[str, int]:
        """For a socket."""
        host, port = self.base_url.removeprefix("http://").split(":")
        return host, int(port)

    def get(self, path: str, **how: Any) -> httpx2.Response:
        return httpx2.get(self.base_url + path, timeout=60, **how)

    def post(self, path: str, **how: Any) -> httpx2.Response:
        return httpx2.post(self.base_url + path, timeout=60, **how)

    def delete(self, path: str) -> httpx2.Response:
        return httpx2.delete(self.base_url + path, timeout=60)

    def wait_until_idle(self) -> None:
        """No request waits or runs."""
        wait_until(lambda: not self.context.service.jobs() and not self.context.jobs)


@contextmanager
def running(context: Context) -> Iterator[Running]:
    """A server over a service, on a free port of 127.0.0.1."""
    app = create_app(context)
    opened = socket.create_server(("127.0.0.1", 0))
    settings = context.settings
    http = guarded(settings.idle_seconds, settings.connections)
    config = uvicorn.Config(app, http=http, ws="none", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([opened],), daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    host, port = opened.getsockname()
    yield Running(base_url=f"http://{host}:{port}", context=context, app=app)
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@dataclass(kw_only=True)
class Process:
    """`sdxl-trt serve` on a free port, with its log."""

    popen: subprocess.Popen[str]
    base_url: str
    log: list[dict[str, Any]] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    """Lines on standard error that are not of the log."""

    def get(self, path: str, **how: Any) -> httpx2.Response:
        return httpx2.get(self.base_url + path, timeout=60, **how)

    def post(self, path: str, **how: Any) -> httpx2.Response:
        return httpx2.post(self.base_url + path, timeout=60, **how)

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.get("/readyz").status_code == 200, 60)

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def ended(self) -> int:
        """Its exit status, once it has ended by itself."""
        return self.popen.wait(30)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in list(self.log) if line["event"] == name]

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            if line.startswith("{"):
                self.log.append(json.loads(line))
            else:
                self.other.append(line)


@contextmanager
def serve_process(
    *options: object, program: tuple[str, ...] = ("-m", "sdxl_trt"), **variables: str
) -> Iterator[Process]:
    """A process, which is ended with the block. It may not be ready yet."""
    popen = subprocess.Popen(
        [sys.executable, *program, "serve", "--port", "0", "--threads", "1", "--json", *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
    )
    try:
        assert popen.stdout is not None
        process = Process(popen=popen, base_url=json.loads(_line(popen))["address"])
        reader = threading.Thread(target=process._read, daemon=True)
        reader.start()
        yield process
        popen.kill()
        reader.join(10)
    finally:
        popen.kill()
        popen.wait()


def _line(popen: subprocess.Popen[str]) -> str:
    """The first on standard output."""
    found = queue.Queue[str]()
    assert popen.stdout is not None
    stream = popen.stdout
    threading.Thread(target=lambda: found.put(stream.readline()), daemon=True).start()
    line = found.get(timeout=60)
    assert line, popen.stderr and popen.stderr.read()
    return line


def talk(address: tuple[str, int], *parts: bytes, pause: float = 0.0) -> bytes:
    """Bytes sent as they are, with pauses; what came until the other side closed."""
    with socket.create_connection(address, timeout=20) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        except OSError:  # closed while this was sending
            pass
        received = b""
        try:
            while block := connection.recv(65536):
                received += block
        except ConnectionResetError:
            pass
        return received
