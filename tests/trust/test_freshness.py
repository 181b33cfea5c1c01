"""Older bundles are refused: than the newest of their repository, than what they replace; unless it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdxl_trt.errors import NotTrusted
from sdxl_trt.trust import Freshness

REPOSITORY = "registry.example/sdxl"
OLD, NEW = "2026-01-02T03:04:05+00:00", "2026-01-02T03:04:06+00:00"


@pytest.fixture
def freshness(tmp_path: Path) -> Freshness:
    return Freshness(tmp_path)


def test_older_than_what_came_before(freshness: Freshness, tmp_path: Path) -> None:
    freshness.check(REPOSITORY, OLD)
    freshness.remember(REPOSITORY, NEW)
    again = Freshness(tmp_path)
    again.check(REPOSITORY, NEW)
    again.check("registry.example/other", OLD)
    with pytest.raises(NotTrusted, match="older than the newest that came from") as caught:
        again.check(REPOSITORY, OLD)
    assert (caught.value.got, caught.value.expected) == (f"made {OLD}", f"made {NEW} or later")
    assert "--allow-downgrade" in caught.value.fix
    again.remember(REPOSITORY, OLD)
    again.check(REPOSITORY, OLD)


def test_older_than_what_it_replaces(freshness: Freshness) -> None:
    freshness.check(REPOSITORY, NEW, OLD)
    freshness.check(REPOSITORY, NEW, NEW)
    with pytest.raises(NotTrusted, match="older than the one in its place"):
        freshness.check(REPOSITORY, OLD, NEW)


def test_times_are_compared_and_not_their_text(freshness: Freshness) -> None:
    """Half past one in Berlin is before one in London."""
    freshness.remember(REPOSITORY, "2026-01-02T01:00:00+00:00")
    with pytest.raises(NotTrusted, match="older"):
        freshness.check(REPOSITORY, "2026-01-02T01:30:00+01:00")


@pytest.mark.parametrize("created", ["", "yesterday", "2026-01-02T03:04:05", "9" * 10_000, "2026-13-01T00:00:00+00:00"])
def test_times_that_cannot_be_read(freshness: Freshness, created: str) -> None:
    with pytest.raises(NotTrusted, match="the age of the bundle") as caught:
        freshness.check(REPOSITORY, created)
    assert len(caught.value.got) < 200


@pytest.mark.parametrize("text", [b"", b"{}", b"[" * 9999, b'{"repository": "x", "created": 1}'])
def test_a_record_that_is_damaged_is_not_taken_for_none(freshness: Freshness, tmp_path: Path, text: bytes) -> None:
    freshness.remember(REPOSITORY, NEW)
    (record,) = tmp_path.rglob("*.json")
    record.write_bytes(text)
    with pytest.raises(NotTrusted, match="what was remembered") as caught:
        freshness.check(REPOSITORY, NEW)
    assert str(record) in caught.value.got
    record.unlink()
    freshness.check(REPOSITORY, OLD)
