"""The server as a process: it listens before a bundle is loaded, ends as it is told to, and loads anew when it is told.

SIGTERM, SIGINT   takes no more requests, finishes those that it has, and ends; at once where it comes again
SIGHUP            loads the bundle anew
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from sdxl_trt.errors import GpuLost, SdxlTrtError, UsageError
from sdxl_trt.runtime.serve.http.connections import guarded
from sdxl_trt.runtime.serve.http.context import Context, Settings
from sdxl_trt.runtime.serve.http.errors import HttpError
from sdxl_trt.runtime.serve.http.loader import Loader
from sdxl_trt.runtime.serve.http.logs import CONFIG, log
from sdxl_trt.runtime.serve.service import FAILED

LOOK_SECONDS = 0.2
"""How often it looks whether a device is left."""
_BACKLOG = 2048
LAST_SECONDS = 30
"""For answers that are on their way once all requests are done."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a server listens."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0: a free one."""
    certificate: Path | None = None
    """TLS, with the key beside it; None: plain HTTP."""
    private_key: Path | None = None

    @property
    def is_loopback(self) -> bool:
        """Nobody but this host reaches it."""
        return ipaddress.ip_address(self._resolved()[1][0].partition("%")[0]).is_loopback

    def listen(self) -> socket.socket:
        """A socket that is bound.

        Raises:
            UsageError: there is no such address here, or it is taken.
        """
        family, address = self._resolved()
        # asyncio has TCP_NODELAY set where the protocol is named alone: else every answer's body comes 40 ms late.
        opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
            opened.listen(_BACKLOG)  # who asks before a thread answers waits, and is not refused
        except OSError as error:
            opened.close()
            raise self._unusable(error) from error
        return opened

    def url(self, opened: socket.socket) -> str:
        """What clients ask.

        Args:
            opened: what `listen` gave.
        """
        host, port = opened.getsockname()[:2]
        return f"http{'s' if self.certificate else ''}://{f'[{host}]' if ':' in host else host}:{port}"

    def _resolved(self) -> tuple[int, tuple[str, int]]:
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as error:
            raise self._unusable(error) from error
        family, _, _, _, address = found[0]
        return family, address  # type: ignore[return-value]  # of IPv6 there are four

    def _unusable(self, error: OSError) -> UsageError:
        return UsageError(
            f"cannot listen on {self.host}, port {self.port}",
            got=error.strerror or str(error),
            expected="an address of this host, and a port that nobody else has",
            fix="--host 127.0.0.1 --port 0",
        )


class Server:
    """One application on one address, for the main thread.

    Args:
        app: from `create_app`.
        address: where it listens.
        drain_seconds: that requests have to end once it is to stop.

    Raises:
        UsageError: the certificate cannot be used.
    """

    def __init__(self, app: FastAPI, address: Address, drain_seconds: float) -> None:
        self._context: Context = app.state.context
        self._loader: Loader = app.state.loader
        self._address, self._drain_seconds = address, drain_seconds
        self._stopping = False
        self._error: BaseException | None = None
        self._uvicorn = _Uvicorn(_config(app, address, self._context.settings))

    def run(self, opened: socket.socket) -> None:
        """Load the bundle and serve it, until it is told to end.

        Args:
            opened: what the address's `listen` gave; closed at the end.

        Raises:
            SdxlTrtError: the bundle cannot be loaded; or all devices failed.
        """
        asyncio.run(self._serve(opened))
        if self._error is not None:
            raise self._error
        log("ended")
        last = self._loader.last
        if last is not None and not last.ended.done():
            _leave(0)  # an engine may be at work in a thread that nothing ends

    async def _serve(self, opened: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        first = self._loader.start()
        first.ended.add_done_callback(lambda done: loop.call_soon_threadsafe(self._loaded, done.exception()))
        watching = asyncio.create_task(self._watch())
        await self._uvicorn.serve(sockets=[opened])
        watching.cancel()

    def _loaded(self, error: BaseException | None) -> None:
        """The first bundle is, or cannot be."""
        if error is not None and not self._stopping:
            self._end(error)

    def _reload(self) -> None:
        with contextlib.suppress(HttpError):  # one is being loaded, which the log says
            self._loader.start()

    def _stop(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._stopping:
            log("stopped at once", logging.WARNING, signal=name)
            _leave(128 + number)
        self._stopping = True
        log("draining", signal=name, requests=len(self._context.service.jobs()))
        threading.Thread(target=self._drain, name="drain", daemon=True).start()

    def _drain(self) -> None:
        in_time = self._context.service.drain(self._drain_seconds)
        log("drained", logging.INFO if in_time else logging.WARNING, all_finished=in_time)
        self._uvicorn.should_exit = True

    async def _watch(self) -> None:
        while self._context.service.state != FAILED:
            await asyncio.sleep(LOOK_SECONDS)
        self._end(GpuLost("all devices failed", expected="at least one that works", fix="start the server again"))

    def _end(self, error: BaseException) -> None:
        if isinstance(error, SdxlTrtError):
            log("failed", logging.ERROR, **error.as_dict())
        self._error = error
        self._uvicorn.should_exit = True


class _Uvicorn(uvicorn.Server):
    """Signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _config(app: FastAPI, address: Address, settings: Settings) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=guarded(settings.idle_seconds, settings.connections),
        ws="none",
        log_config=CONFIG,
        access_log=False,
        server_header=False,
        timeout_keep_alive=round(settings.idle_seconds),
        timeout_graceful_shutdown=LAST_SECONDS,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.private_key,
    )
    try:
        config.load()
    except OSError as error:  # ssl's errors too
        raise UsageError(
            "the certificate cannot be used",
            got=error.strerror or str(error),
            expected="PEM files of a certificate and its private key",
            fix="--ssl-certfile cert.pem --ssl-keyfile key.pem",
        ) from error
    return config


def _leave(status: int) -> None:
    """End this process, whatever its threads do."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
