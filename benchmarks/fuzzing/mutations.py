"""Manifests made of valid ones by a few changes to their values, their structure or their bytes; and of nothing.

All chance is a `random.Random`'s. (Hypothesis as the source of it was tried: four of five manifests it had made before,
and it took longer to draw them than to try them. It is in tests/trust/test_fuzz.py, where it also makes them small.)
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

from benchmarks.fuzzing.documents import DOCUMENTS
from sdxl_trt.bundle import SCHEMA_VERSION
from sdxl_trt.spec import SPEC_VERSION

Path = tuple[str | int, ...]

_EDGES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**50, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e308, 5e-324,
    float("nan"), float("inf"), float("-inf"), "", "..", "../" * 20 + "etc/passwd", "/etc/passwd", "a\0b",
    "\ud800", "\u202e", "\x1b[2J", "a" * 64, "A" * 64, "b" * 64, "c" * 64, "0" * 63, "é" * 64, "x" * 5000, "9" * 5000,
    "step", "cpu", "tensorrt", "9999-12-31T23:59:59+14:00", "2026-01-02", [], {}, [[]], [None], [[[[[[]]]]]], {"": ""},
    {"sha256": "a" * 64, "bytes": 1},
)  # fmt: skip
"""Values that programs stumble over."""

_PIECES = (
    b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 40, b"]" * 40, b"[" * 5000, b"{", b"}", b'"', b",", b":", b"\\",
    b"\\ud800", b"\\u0000", b"\0", b"\xff", b"\xef\xbb\xbf", b"//", b"/*", b"'", b'"schema": 4,', b'"targets": [],',
    b"e", b"-", b"0", b" " * 100, b"\n", b"true", b"null",
)  # fmt: skip
"""Text that parsers stumble over."""


def _paths(value: Any, here: Path = ()) -> list[Path]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, item in inside for path in ((*here, key), *_paths(item, (*here, key)))]


_PATHS = [_paths(json.loads(document)) for document in DOCUMENTS]


def _put(parent: Any, key: Any, random: Random, _: Any) -> None:
    """Any other value."""
    parent[key] = scalar(random)


def _like(parent: Any, key: Any, random: Random, _: Any) -> None:
    """Another value of the same type, not far away."""
    old = parent[key]
    kinds: dict[type, Callable[[], Any]] = {
        bool: lambda: not old,
        int: lambda: old + random.randint(-3, 1000),
        float: lambda: old * random.uniform(-1, 3),
        str: lambda: f"{random.getrandbits(256):064x}" if len(old) == 64 else old + random.choice("abc.019-"),
        list: lambda: old[: random.randint(0, len(old))],
    }
    if type(old) in kinds:
        parent[key] = kinds[type(old)]()


def _remove(parent: Any, key: Any, _: Random, __: Any) -> None:
    del parent[key]


def _add(parent: Any, key: Any, random: Random, _: Any) -> None:
    """A field or an item that was not there."""
    if isinstance(parent, dict):
        parent[f"{key}{random.randint(0, 99)}"] = scalar(random)
    else:
        parent.append(scalar(random))


def _again(parent: Any, key: Any, _: Random, __: Any) -> None:
    """An item twice, a field under another name too."""
    if isinstance(parent, dict):
        parent[f"{key}_"] = copy.deepcopy(parent[key])
    else:
        parent.append(copy.deepcopy(parent[key]))


def _move(parent: Any, key: Any, _: Random, elsewhere: Any) -> None:
    """What stands elsewhere."""
    parent[key] = copy.deepcopy(elsewhere)


_CHANGES = (_put, _like, _like, _like, _like, _remove, _add, _again, _move)


def scalar(random: Random) -> Any:
    """A value that programs stumble over, or any."""
    return random.choice(
        (
            lambda: random.choice(_EDGES),
            lambda: random.randint(-(2 ** random.randint(0, 70)), 2 ** random.randint(0, 70)),
            lambda: random.uniform(-1, 1) * 10.0 ** random.randint(-300, 300),
            lambda: "".join(chr(random.randint(0, 0x2FFF)) for _ in range(random.randint(0, 12))),
        )
    )()


def changed_values(random: Random) -> bytes:
    """A valid manifest with one to three changes in its structure."""
    which = random.randrange(len(DOCUMENTS))
    document, paths = json.loads(DOCUMENTS[which]), _PATHS[which]
    for _ in range(random.randint(1, 3)):
        path, other = random.choice(paths), random.choice(paths)
        try:
            random.choice(_CHANGES)(_at(document, path[:-1]), path[-1], random, _at(document, other))
        except (KeyError, IndexError, TypeError, AttributeError):  # an earlier change took the place away
            continue
    return json.dumps(document).encode()


def _at(document: Any, path: Path) -> Any:
    for step in path:
        document = document[step]
    return document


def changed_text(random: Random) -> bytes:
    """A valid manifest with one to three changes in its bytes."""
    text = random.choice(DOCUMENTS).encode()
    for _ in range(random.randint(1, 3)):
        start, length = random.randrange(len(text) + 1), random.choice((0, 0, 0, 1, 2, 8, 300))
        piece = random.choice(_PIECES) if random.random() < 0.6 else random.randbytes(random.randint(0, 4))
        text = text[:start] + piece + text[start + length :]
    return text


def changed_digits(random: Random) -> bytes:
    """A valid manifest whose text has other letters and digits in places: JSON still, as a rule."""
    which = random.randrange(len(DOCUMENTS))
    text = bytearray(DOCUMENTS[which].encode())
    for _ in range(random.randint(1, 3)):
        text[random.choice(_LETTERS[which])] = ord(random.choice("0123456789abcdefxyzE.-"))
    return bytes(text)


_LETTERS = [[place for place, letter in enumerate(document) if letter.isalnum()] for document in DOCUMENTS]


def any_json(random: Random) -> bytes:
    """JSON of any shape, some of it with a manifest's field names."""
    document = _value(random, random.randint(0, 6))
    if isinstance(document, dict) and random.random() < 0.7:
        document |= {"schema": SCHEMA_VERSION, "spec": SPEC_VERSION}
    return json.dumps(document).encode()


def _value(random: Random, depth: int) -> Any:
    if depth == 0:
        return scalar(random)
    items = [_value(random, depth - 1 - random.randint(0, depth - 1)) for _ in range(random.randint(0, 4))]
    if random.random() < 0.3:
        return items
    return {random.choice(_FIELDS): item for item in items}


_FIELDS = ("schema", "spec", "model", "targets", "files", "created", "tool", "refiner", "engines", "name", "sha256", "")

_MAKERS = (changed_values,) * 5 + (changed_digits,) * 2 + (changed_text,) * 2 + (any_json,)


def manifest(random: Random) -> bytes:
    """One of a kind; seven of ten are nearly valid."""
    return random.choice(_MAKERS)(random)
