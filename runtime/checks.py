"""Values of a request, checked: each is what it should be, or one clear error."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from numbers import Integral

import numpy as np

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime.noise import TorchGenerator

Pair = tuple[int, int]

_MOST_PIXELS = 1_000_000
_NUMBERS = (int, float, np.integer, np.floating)


def check_size(name: str, value: object, default: Pair) -> Pair:
    """(width, height) in pixels, or the default where there is none."""
    return default if value is None else check_pair(name, value, least=1)


def check_seeds(seed: int | Sequence[int] | None, images: int | None) -> tuple[int, ...]:
    """One seed for each picture: `images` of them, where that is given."""
    if seed is None:
        return tuple(secrets.randbits(32) for _ in range(images or 1))
    seeds = tuple(seed) if isinstance(seed, Iterable) and not isinstance(seed, str) else (seed,)
    for each in seeds:
        TorchGenerator(each)  # refuses what is no seed
    if not seeds or (images is not None and len(seeds) != images):
        raise UsageError(
            "the number of seeds is wrong",
            got=f"{len(seeds)} seeds",
            expected=f"{images} of them, one for each picture" if images else "at least one",
            fix="seed=(0, 1, 2) makes three pictures",
        )
    return tuple(int(each) for each in seeds)


def check_text(name: str, value: object) -> str:
    """Text."""
    if not isinstance(value, str):
        raise _wrong(name, type(value).__name__, "text", f'{name}="a red circle"')
    return value


def check_optional_text(name: str, value: object) -> str | None:
    """Text, or None."""
    return None if value is None else check_text(name, value)


def check_integer(name: str, value: object, *, least: int) -> int:
    """An integer of at least `least`."""
    number = _as_integer(value)
    if number is None or number < least:
        raise _wrong(name, _short(value), f"an integer of at least {least}", f"{name}={max(least, 30)}")
    return number


def _as_integer(value: object) -> int | None:
    """Any library's integer, but no truth value."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def check_number(name: str, value: object, *, most: float) -> float:
    """A number from 0 to `most`."""
    if isinstance(value, _NUMBERS) and not isinstance(value, bool) and 0 <= value <= most:  # not so for a NaN
        return float(value)
    raise _wrong(name, _short(value), f"a number from 0 to {most:g}", f"{name}={min(5.0, most):g}")


def check_pair(name: str, value: object, *, least: int) -> Pair:
    """Two integers, such as a size."""
    items = [_as_integer(item) for item in value] if isinstance(value, tuple | list) else []
    match items:
        case [int(first), int(second)] if least <= min(first, second) and max(first, second) <= _MOST_PIXELS:
            return first, second
    order = "(top, left)" if name.endswith("top_left") else "(width, height)"
    fix = f"{name}={(least * 1024,) * 2}"
    raise _wrong(name, _short(value), f"{order}: two integers from {least} to {_MOST_PIXELS}", fix)


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print an integer of more than some thousand digits
        text = "an enormous integer"
    return text if len(text) <= 80 else text[:77] + "..."


def _wrong(name: str, got: str, expected: str, fix: str) -> UsageError:
    return UsageError(f"{name} cannot be used", got=got, expected=expected, fix=fix)
