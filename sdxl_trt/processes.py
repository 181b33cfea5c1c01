"""A module of this package that runs as a process of its own, at the other end of a pipe."""

from __future__ import annotations

import signal
import subprocess
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any


def start_apart(module: str, **streams: Any) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start a module, which gets the number of its end of a pipe as its argument.

    In a session of its own it does not see Ctrl-C, which is for this process to handle. It imports nothing of this
    process's main program, as multiprocessing's own ways of starting would.

    Args:
        module: its name.
        streams: stdout and stderr, as of subprocess.Popen.

    Returns:
        The process, and this process's end of the pipe. No other process has it: it ends with this one.
    """
    ours, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **streams,
        )
    return process, ours


def how_it_ended(status: int) -> str:
    """A process's exit status in words."""
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
