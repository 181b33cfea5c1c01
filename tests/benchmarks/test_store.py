"""What the store's benchmark counts, without a plan being built."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import store
from benchmarks.cutting import Cutter, Plan
from sdxl_trt.errors import OutputError
from sdxl_trt.spec import Profile

CONTENT = np.random.default_rng(0).integers(0, 256, 400_000, np.uint8).tobytes()
SIZES = (4096, 8192)


def cut(content: bytes) -> Plan:
    cutter = Cutter(SIZES)
    for start in range(0, len(content), 50_001):
        cutter.write(content[start : start + 50_001])
    return cutter.plan()


def test_every_way_covers_the_plan() -> None:
    plan = cut(CONTENT)
    assert plan.bytes == len(CONTENT)
    assert set(plan.cuts) == {(who, size) for who in ("FastCDC", "fixed") for size in SIZES}
    for parts in plan.cuts.values():
        assert sum(parts.values()) == len(CONTENT)
    assert sorted(plan.cuts["fixed", 4096].values())[-2:] == [4096, 4096]


def test_a_few_bytes_more_are_new_to_fixed_sizes_alone() -> None:
    profile = Profile.make(smallest=(64, 64), best=(64, 64), largest=(64, 64), batch=1)
    wanted = store.variants(Path("a"), Path("b"), (profile, profile))[:3]
    moved = cut(b"seven b" + CONTENT)
    plans = {variant.name: {"step": cut(CONTENT)} for variant in wanted[:2]} | {wanted[2].name: {"step": moved}}
    report = store._report(plans, wanted, 2**10, {})
    new = {(row.who, row.what): row.median for row in report.rows if row.what.endswith(": new")}
    assert {share for (_, what), share in new.items() if what == "SM 8.6 again: new"} == {0}
    assert new["fixed, 4 KiB", "SM 8.9: new"] == 100
    assert 0 < new["FastCDC, 4 KiB", "SM 8.9: new"] < 10
    by_graph = report.details["new by graph"]["SM 8.9"]["step"]
    assert by_graph["bytes"] == by_graph["fixed, 8 KiB"] == len(CONTENT) + 7
    assert report.aims == []


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**8))
    with pytest.raises(OutputError, match="no room") as caught:
        store._check_room(tmp_path, tmp_path)
    assert (caught.value.got, caught.value.expected) == ("0.1 GB free", "0.6 GB")
    assert list(tmp_path.iterdir()) == []
