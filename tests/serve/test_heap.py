"""Heaps of the C library."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys, threading
from sdxl_trt.runtime.serve.heap import share_heaps

if sys.argv[1] == "shared" and not share_heaps():
    sys.exit(3)
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
barrier, places = threading.Barrier(12), []

def take():
    barrier.wait()
    places.append(libc.malloc(ctypes.c_size_t(64)))
    barrier.wait()

threads = [threading.Thread(target=take) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len({place // 2**26 for place in places}))  # a heap of a thread's own begins at a multiple of 64 MB
"""


def heaps(way: str) -> int:
    """In how many heaps twelve threads take memory."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("this C library has no heaps of threads")
    return int(done.stdout)


def test_threads_share_heaps() -> None:
    shared = heaps("shared")
    assert shared <= 3
    assert heaps("own") > shared + 1
