r"""Prompts in A1111's attention syntax, read into pieces of text and their weights.

    (text)       more, by 1.1            [text]       less, by 1/1.1            (text:1.3)   by 1.3
    \( \) \[ \] \\   the character itself                      BREAK        what follows goes into the next chunk

Brackets nest, and their factors multiply. One that is never closed counts up to the end of the prompt; a closing one
that was never opened is text, and so is `:1.3)` after it. A BREAK within brackets is, as there, an ordinary word of
negative weight: put it between them. Source: parse_prompt_attention in modules/prompt_parser.py of
AUTOMATIC1111/stable-diffusion-webui 1.10. For AND, [from:to:when] and [a|b] see `sdxl_trt.runtime.prompts.editing`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

import numpy as np

from sdxl_trt.errors import UsageError

Piece = tuple[str, float]
"""Text and its weight."""

BREAK: Piece = ("BREAK", -1.0)
"""Ends a chunk."""

_FACTORS = {"(": 1.1, "[": 1 / 1.1}

_TOKEN = re.compile(
    r"\\(?P<escaped>[()\[\]\\]?)|(?P<opening>[(\[])|:\s*(?P<weight>[+-]?[.\d]+)\s*\)|(?P<closing>[)\]])|[^\\()\[\]:]+|:"
)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")


def parse_attention(prompt: str) -> list[Piece]:
    """A prompt as pieces of text and their weights, those next to one another of different weight.

    Raises:
        UsageError: a weight that is no finite number.
    """
    pieces: list[Piece] = []
    spans: list[tuple[int, int, float]] = []  # first piece, the one after the last, factor
    opened: dict[str, list[int]] = {bracket: [] for bracket in _FACTORS}
    for match in _TOKEN.finditer(prompt):
        part, kind = match[0], match.lastgroup
        bracket = "[" if part == "]" else "("
        if kind == "escaped":
            pieces.append((match["escaped"], 1.0))
        elif kind == "opening":
            opened[part].append(len(pieces))
        elif kind is not None and opened[bracket]:
            factor = _FACTORS[bracket] if kind == "closing" else _number(match["weight"])
            spans.append((opened[bracket].pop(), len(pieces), factor))
        else:
            pieces += _split_at_breaks(part)
    for bracket, starts in opened.items():
        spans += [(start, len(pieces), _FACTORS[bracket]) for start in starts]
    return _weighted(pieces, spans) or [("", 1.0)]


def _split_at_breaks(text: str) -> Iterable[Piece]:
    first, *others = _BREAK.split(text)
    yield first, 1.0
    for other in others:
        yield BREAK
        yield other, 1.0


def _weighted(pieces: list[Piece], spans: list[tuple[int, int, float]]) -> list[Piece]:
    """Multiply every span's factor into its pieces, and join neighbours of equal weight."""
    weights = np.array([weight for _, weight in pieces])
    with np.errstate(over="ignore", invalid="ignore"):
        for start, stop, factor in spans:
            weights[start:stop] *= factor
    if not np.isfinite(weights).all():
        raise _no_weight("a product of weights that is not finite")
    texts = iter(text for text, _ in pieces)
    return [
        ("".join(itertools.islice(texts, len(list(run)))), weight)
        for weight, run in itertools.groupby(weights.tolist())
    ]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise _no_weight(repr(text)) from error


def _no_weight(got: str) -> UsageError:
    return UsageError(
        "a weight in the prompt cannot be read",
        got=got,
        expected="one finite number, as in (word:1.3)",
        fix=r"brackets that are meant as such are written \( and \)",
    )
