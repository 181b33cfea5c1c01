"""Strict reading of JSON that may be hostile."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdxl_trt.decode import MAX_DEPTH, DecodeError, decode, loads


@dataclass(frozen=True, kw_only=True)
class Inner:
    name: str
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("no name")


@dataclass(frozen=True, kw_only=True)
class Outer:
    scale: float
    parts: dict[str, Inner]
    pair: tuple[int, str]
    note: str | None = None
    on: bool = False


GOOD: dict[str, Any] = {"scale": 1, "parts": {"a": {"name": "x", "sizes": [1, 2]}}, "pair": [3, "y"]}


def test_a_good_value_becomes_the_dataclass_and_back() -> None:
    value = decode(Outer, GOOD)
    assert value == Outer(scale=1.0, parts={"a": Inner(name="x", sizes=(1, 2))}, pair=(3, "y"))
    assert decode(Outer, json.loads(json.dumps(dataclasses.asdict(value)))) == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"more": 1}, "unknown field 'more'"),
        ({"scale": None}, r"\$\.scale: None is not float"),
        ({"scale": True}, r"\$\.scale: True is not float"),
        ({"scale": "1"}, r"\$\.scale"),
        ({"on": 1}, r"\$\.on: 1 is not bool"),
        ({"note": 1}, r"\$\.note: 1 is not str"),
        ({"pair": [3]}, r"\$\.pair: 1 items where 2 are needed"),
        ({"parts": []}, r"\$\.parts: \[\] is not dict"),
        ({"parts": {"a": {}}}, r"\$\.parts\.a: field 'name' is missing"),
        ({"parts": {"a": {"name": ""}}}, r"\$\.parts\.a: no name"),
        ({"parts": {"a": {"name": "x", "sizes": [1, 2.0]}}}, r"sizes\[1\]: 2.0 is not int"),
    ],
)
def test_anything_else_is_refused_with_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        decode(Outer, GOOD | change)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff",
        b'{"a": 1, "a": 1}',
        b"NaN",
        b"[Infinity]",
        b"[" * 100 + b"]" * 100,
        b"1" * 1001,
        b"[1" + b"0" * 5000,
    ],
)
def test_text_that_is_not_strict_json(text: bytes) -> None:
    with pytest.raises(DecodeError):
        loads(text, max_bytes=1000)


def test_brackets_in_strings_are_no_nesting() -> None:
    prompt = '(((word:1.3))) [[[[ \\" [[{{' + "[" * 100
    assert loads(json.dumps({"prompt": prompt}).encode(), max_bytes=1000) == {"prompt": prompt}
    nested = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert loads(nested, max_bytes=1000)
    with pytest.raises(DecodeError, match="nested"):
        loads(b"[" + nested + b"]", max_bytes=1000)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_no_value_raises_anything_else(value: Any) -> None:
    try:
        decode(Outer, loads(json.dumps(value).encode(), max_bytes=10**6))
    except DecodeError:
        return
    raise AssertionError(f"{value!r} passed as an Outer")
