"""How the C library keeps memory that a server frees."""

from __future__ import annotations

import ctypes

M_ARENA_MAX = -8
"""mallopt(3)."""


def share_heaps(most: int = 2) -> bool:
    """Have all threads of this process share a few of glibc's heaps, before they are started.

    By itself it has up to eight for each core, and threads of a bundle that was loaded anew take others than those
    before: the memory that a server holds grows with every reload, until all are in use, though nothing is kept.

    Returns:
        Whether the C library is one with such heaps.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(M_ARENA_MAX, most))
