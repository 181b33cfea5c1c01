"""Percentiles and tables."""

from __future__ import annotations

import numpy as np
import pytest

from sdxl_trt.bench.rows import Figure, markdown_table, number, text_table


def figure(*samples: float, reason: str = "") -> Figure:
    return Figure(who="us", what="step", batch=2, unit="ms", samples=samples, reason=reason)


def test_percentiles_of_known_numbers() -> None:
    numbers = np.random.default_rng(0).permutation(101).astype(float)
    found = figure(*numbers).statistics()
    assert found == {"min": 0, "mean": 50, "p50": 50, "p90": 90, "p95": 95, "p99": 99}
    assert figure(1, 3).statistics() == pytest.approx(
        {"min": 1, "mean": 2, "p50": 2, "p90": 2.8, "p95": 2.9, "p99": 2.98}
    )
    assert set(figure(7).statistics().values()) == {7}


def test_what_was_not_measured_is_null_with_the_reason() -> None:
    told = figure(reason="no meter").as_json()
    assert told["reason"] == "no meter"
    assert told["samples"] == []
    assert all(told[name] is None for name in ("min", "mean", "p50", "p90", "p95", "p99"))
    assert figure(1).as_json()["reason"] is None


def test_numbers_have_three_digits() -> None:
    assert [number(value) for value in (0.012345, 1.5, 99.94, 123.4, 12345.6, 0)] == [
        "0.0123", "1.5", "99.9", "123", "12,346", "0",
    ]  # fmt: skip


def test_tables() -> None:
    rows = [("name", "n"), ("a|b", "1"), ("c", "234")]
    assert text_table(rows, "lr") == ["name    n", "a|b     1", "c     234"]
    assert markdown_table(rows, "lr") == ["| name | n |", "|---|--:|", "| a\\|b | 1 |", "| c | 234 |"]
