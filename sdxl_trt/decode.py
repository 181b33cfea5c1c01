"""JSON into frozen dataclasses, strictly: unknown, missing and mistyped fields are errors that say where.

The reverse is `dataclasses.asdict`. Python's own `json` accepts NaN, duplicate keys and numbers of any length, so
reading untrusted text goes through `loads`, which does not.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")

MAX_DEPTH = 32
"""Levels of nesting that any of our files needs, with room; deeper is refused before Python's own limit."""


_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")


class DecodeError(ValueError):
    """A value that is not what its field says; the message starts with the field's path."""


def loads(text: bytes, *, max_bytes: int) -> Any:
    """Parse untrusted JSON.

    Raises:
        DecodeError: not UTF-8 JSON, over `max_bytes`, duplicate keys, NaN or infinity, nested over `MAX_DEPTH`, or
            escapes that are no text (lone surrogates, which can be neither written nor shown).
    """
    if len(text) > max_bytes:
        raise DecodeError(f"{len(text)} bytes, more than the {max_bytes} allowed")
    if _depth(text) > MAX_DEPTH:
        raise DecodeError(f"nested deeper than {MAX_DEPTH} levels")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        if b"\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except DecodeError:
        raise
    except UnicodeEncodeError as error:
        raise DecodeError("a lone surrogate, which is no text") from error
    except ValueError as error:
        raise DecodeError(f"not JSON: {error}") from error
    return value


def _depth(text: bytes) -> int:
    """Levels of nesting; brackets inside strings do not count."""
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_STRING.sub(b"", text)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
        raise DecodeError(f"key {twice!r} stands twice")
    return value


def _no_constant(name: str) -> Any:
    raise DecodeError(f"{name} is not a JSON number")


def decode(cls: type[T], value: Any, where: str = "$") -> T:
    """Build a `cls` (a dataclass, tuple, dict, optional or scalar type) from parsed JSON.

    Raises:
        DecodeError: a field is missing, unknown, or of another type; or `cls.__post_init__` refused it.
    """
    return typing.cast(T, _decode(cls, value, where))


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass(typing.cast(type, kind), value, where)
    if origin in (types.UnionType, typing.Union):
        return _union(args, value, where)
    if origin is tuple:
        _expect(value, list, where)
        if args[-1] is Ellipsis:
            return tuple(_decode(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        if len(value) != len(args):
            raise DecodeError(f"{where}: {len(value)} items where {len(args)} are needed")
        return tuple(_decode(arg, item, f"{where}[{i}]") for i, (arg, item) in enumerate(zip(args, value, strict=True)))
    if origin is dict:
        _expect(value, dict, where)
        return {key: _decode(args[1], item, f"{where}.{key}") for key, item in value.items()}
    return value if kind is Any else _scalar(kind, value, where)


def _dataclass(kind: type, value: Any, where: str) -> Any:
    _expect(value, dict, where)
    fields, required = _fields(kind)
    for key in value:
        if key not in fields:
            raise DecodeError(f"{where}: unknown field {key!r}")
    for name in required:
        if name not in value:
            raise DecodeError(f"{where}: field {name!r} is missing")
    arguments = {key: _decode(fields[key], item, f"{where}.{key}") for key, item in value.items()}
    try:
        return kind(**arguments)
    except DecodeError:
        raise
    except ValueError as error:
        raise DecodeError(f"{where}: {error}") from error


@functools.cache
def _fields(kind: type) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The fields of a dataclass with their types, and which must be given."""
    hints, fields = typing.get_type_hints(kind), dataclasses.fields(kind)
    needed = (f for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING)
    return {field.name: hints[field.name] for field in fields}, tuple(field.name for field in needed)


def _union(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in args:
        return None
    errors = []
    for arg in args:
        if arg is not type(None):
            try:
                return _decode(arg, value, where)
            except DecodeError as error:
                errors.append(str(error))
    raise DecodeError("; ".join(errors))


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:  # exact: True is no integer here
        raise DecodeError(f"{where}: {_shown(value)} is not {getattr(kind, '__name__', kind)}")
    if kind is float and not math.isfinite(value):
        raise DecodeError(f"{where}: not finite")
    return value


def _expect(value: Any, kind: type, where: str) -> None:
    if not isinstance(value, kind):
        raise DecodeError(f"{where}: {_shown(value)} is not {kind.__name__}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
