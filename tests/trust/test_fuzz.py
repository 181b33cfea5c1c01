"""Hostile manifests: accepted, or refused with an error of this project; never anything else. More: scripts/fuzz."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import report
from benchmarks.fuzzing import tally
from benchmarks.fuzzing.documents import DOCUMENTS
from benchmarks.fuzzing.fates import OTHER, fate
from benchmarks.fuzzing.mutations import any_json, changed_digits, changed_text, changed_values, manifest, scalar
from benchmarks.fuzzing.tally import Tally, fuzz
from sdxl_trt.decode import DecodeError, loads

MOST = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_mutations_begin_with_is_accepted(document: str, tmp_path: Path) -> None:
    assert fate(document.encode(), tmp_path) == "accepted"


@pytest.mark.parametrize("make", [changed_values, changed_digits, changed_text, any_json])
def test_mutations(make: Callable[[Random], bytes], tmp_path: Path) -> None:
    fates = {fate(make(Random(seed)), tmp_path) for seed in range(150)}
    assert len(fates) >= 3
    assert ("accepted" in fates) == (make is not any_json)


def test_many_are_accepted_and_many_refused_for_many_reasons(tmp_path: Path) -> None:
    found = fuzz(tmp_path, wanted=400, seconds=600, seed=1)
    assert (sum(found.fates.values()), len(found.seen), found.faults) == (400, 400, [])
    assert 40 <= found.fates["accepted"] <= 200
    assert len(found.fates) >= 9
    assert found.fates[OTHER] >= 4
    print(report(found, 1))


def test_the_same_seed_makes_the_same_manifests() -> None:
    one, other = ([manifest(random) for _ in range(50)] for random in (Random(3), Random(3)))
    assert one == other


def test_faults_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a hundred thousand without one would prove nothing."""

    def broken(text: bytes, folder: Path) -> str:
        raise RecursionError("too deep")

    monkeypatch.setattr(tally, "fate", broken)
    found = Tally()
    found.note(b"{}", tmp_path)
    found.note(b"{}", tmp_path)
    assert found.fates == {"FAULT": 1}
    assert found.faults[0]["manifest"] == "b'{}'"
    assert "RecursionError: too deep" in found.faults[0]["trace"]


@MOST
@given(data=st.data())
def test_any_value_anywhere(data: st.DataObject, tmp_path: Path) -> None:
    """Hypothesis makes what fails small."""
    document = json.loads(data.draw(st.sampled_from(DOCUMENTS)))
    place: Any = document
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    assert fate(json.dumps(document).encode(), tmp_path)


@MOST
@given(value=JSON)
def test_json_that_never_was_a_manifest(value: Any, tmp_path: Path) -> None:
    assert fate(json.dumps(value).encode(), tmp_path) != "accepted"


@MOST
@given(text=st.binary(max_size=300))
def test_bytes(text: bytes, tmp_path: Path) -> None:
    assert fate(text, tmp_path) != "accepted"


@pytest.mark.parametrize("text", [b'"\\ud800"', b'{"\\udfff": 1}', b'["\\ud800\\ud800"]'])
def test_escapes_that_are_no_text(text: bytes) -> None:
    """They could be neither shown nor written."""
    with pytest.raises(DecodeError, match="lone surrogate"):
        loads(text, max_bytes=100)
    assert loads(b'"\\ud83d\\ude00"', max_bytes=100) == "\U0001f600"


def test_scalars_are_of_every_kind() -> None:
    random = Random(0)
    kinds = {type(scalar(random)) for _ in range(1000)}
    assert kinds == {bool, int, float, str, list, dict, type(None)}
