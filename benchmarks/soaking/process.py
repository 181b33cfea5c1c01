"""The server as a process of its own, and what it holds while it runs: memory, files, threads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.soaking.wire import BadAnswer, Call, ask

READY_SECONDS: Final = 120.0
"""It must be ready after so long."""
END_SECONDS: Final = 60.0
"""It must have ended so long after it was told to."""
LEVELS: Final = ("error", "critical")
"""Of lines in its log that there must be none of."""


class ServerFailed(Exception):
    """It did not become ready, or did not end as it should; says what it logged last."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a process has at one moment."""

    at: float
    """By `time.monotonic`."""
    resident: int
    """Bytes of memory, mapped files included."""
    anonymous: int
    """Bytes of memory that no file backs."""
    files: int
    """Open file descriptors."""
    threads: int


class Server:
    """`sdxl-trt serve`, at a free port of this machine.

    Args:
        bundle: that it serves.
        log: file that takes what it logs.
        options: more of its options.

    Raises:
        ServerFailed: it does not even listen.
    """

    def __init__(self, bundle: Path, log: Path, options: Sequence[str] = ()) -> None:
        self._log = log
        command = [sys.executable, "-m", "sdxl_trt", "serve", "--bundle", str(bundle), "--port", "0", "--json"]
        with log.open("wb") as file:
            self._process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=file, text=True)
        said = self._process.stdout.readline() if self._process.stdout else ""
        if not said:
            raise ServerFailed(f"it does not listen; it said last:\n{self.said()}")
        self.port = int(json.loads(said)["address"].rpartition(":")[2])

    async def wait_ready(self) -> None:
        """Wait until it takes requests.

        Raises:
            ServerFailed: it does not.
        """
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(OSError, BadAnswer):
                if (await ask(self.port, Call(method="GET", path="/readyz"))).status == 200:
                    return
            await asyncio.sleep(0.1)
        raise ServerFailed(f"it is not ready; it said last:\n{self.said()}")

    def held(self) -> Held:
        """What it has now.

        Raises:
            OSError: it has ended.
        """
        folder = Path(f"/proc/{self._process.pid}")
        lines = (folder / "status").read_text(encoding="utf-8").splitlines()
        fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        return Held(
            at=time.monotonic(),
            resident=1024 * int(fields["VmRSS"][0]),
            anonymous=1024 * int(fields["RssAnon"][0]),
            files=len(os.listdir(folder / "fd")),  # noqa: PTH208 (iterdir would open it anew for each)
            threads=int(fields["Threads"][0]),
        )

    def stop(self) -> tuple[int, float]:
        """Tell it to end as systemd does. Returns its exit status, and the seconds that it took.

        Raises:
            ServerFailed: it did not end in time, and was killed.
        """
        started = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(END_SECONDS), time.monotonic() - started
        except subprocess.TimeoutExpired:
            self.kill()
            text = f"it did not end {END_SECONDS:g} s after SIGTERM; it said last:\n{self.said()}"
            raise ServerFailed(text) from None

    def kill(self) -> None:
        """End it, whatever it does; nothing where it has ended."""
        self._process.kill()
        self._process.wait()

    def said(self) -> str:
        """The last of what it logged."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-4000:]

    def complaints(self) -> list[str]:
        """Lines of its log that tell of errors."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if not line.startswith("{") or json.loads(line)["level"] in LEVELS]
