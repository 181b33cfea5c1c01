"""Many manifests, counted by what became of them."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from benchmarks.fuzzing.fates import fate
from benchmarks.fuzzing.mutations import manifest


@dataclass(kw_only=True)
class Tally:
    """What was seen."""

    fates: Counter[str] = field(default_factory=Counter)
    seen: set[bytes] = field(default_factory=set)
    faults: list[dict[str, str]] = field(default_factory=list)
    """Manifests that raised what no manifest may, and the trace."""
    seconds: float = 0.0

    def note(self, text: bytes, folder: Path) -> None:
        """Try one, unless it was tried."""
        digest = hashlib.sha256(text).digest()[:12]
        if digest in self.seen:
            return
        self.seen.add(digest)
        try:
            self.fates[fate(text, folder)] += 1
        except Exception:
            self.fates["FAULT"] += 1
            self.faults.append({"manifest": repr(text[:10_000]), "trace": traceback.format_exc()})


def fuzz(folder: Path, *, wanted: int, seconds: float, seed: int = 0) -> Tally:
    """Try manifests until there are as many as wanted, or the time is over.

    Args:
        folder: a place for them, without blobs.
        wanted: manifests that differ from each other.
        seconds: of time.
        seed: of all chance.
    """
    tally, random, started = Tally(), Random(seed), time.monotonic()
    while len(tally.seen) < wanted and time.monotonic() - started < seconds:
        tally.note(manifest(random), folder)
    tally.seconds = time.monotonic() - started
    return tally
