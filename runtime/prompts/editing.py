r"""What A1111 reads in a prompt and this does not, refused rather than taken for text:

    [from:to:when]   [to:when]   [from::when]   prompt editing, where `when` is a number
    [a|b]                                       alternation
    a AND b                                     composition, where AND is a word of its own

Source: schedule_parser and re_AND in modules/prompt_parser.py of AUTOMATIC1111/stable-diffusion-webui 1.10. As there, a
bracket of another form, or one that is not closed, is literal; and where a `|` is outside of [a|b], nothing is edited.
"""

from __future__ import annotations

import re

from sdxl_trt.errors import UsageError

_AND = re.compile(r"\bAND\b")
_TOKEN = re.compile(r"\\.|[\[\]():|]|[^\\\[\]():|]+", re.DOTALL)
_PLAIN = r"(?:\\.|[^\\\[\]():|])*+"
_NUMBER = r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*"
_EMPHASISED = re.compile(rf"\({_PLAIN}(?::{_PLAIN})?\)|\[{_PLAIN}\]", re.DOTALL)
_EDITED = re.compile(rf"\[(?:{_PLAIN}:)?{_PLAIN}:{_NUMBER}\]|\[{_PLAIN}(?:\|{_PLAIN})+\]", re.DOTALL)


def refuse_editing(prompt: str) -> None:
    """Refuse a prompt that A1111 would not read as one prompt for all steps.

    Raises:
        UsageError: prompt editing, alternation or AND.
    """
    if _AND.search(prompt):
        raise UsageError(
            "prompts composed with AND are not supported",
            got=f"{prompt!r:.80}",
            expected="one prompt",
            fix="write `and`, which the text encoders read the same",
        )
    edited = find_editing(prompt)
    if edited:
        raise UsageError(
            "prompt editing is not supported",
            got=f"{edited:.80}",
            expected="one prompt for all steps: no [from:to:when] and no [a|b]",
            fix=r"choose one of them; or write \[ and \] for brackets that are text",
        )


def find_editing(prompt: str) -> str | None:
    """The first bracket of a prompt that A1111 would read as editing or alternation."""
    found = None
    literal: list[str] = []
    opened: list[tuple[int, list[str]]] = []  # where a bracket begins, and its parts, those in brackets as one letter
    for match in _TOKEN.finditer(prompt):
        part = match[0]
        if part in {"(", "["}:
            opened.append((match.start(), []))
        (opened[-1][1] if opened else literal).append(part)
        if part not in {")", "]"} or not opened:
            continue
        start, parts = opened[-1]
        whole = "".join(parts)
        edited = _EDITED.fullmatch(whole)
        if edited or _EMPHASISED.fullmatch(whole):
            opened.pop()
            (opened[-1][1] if opened else literal).append("x")
            found = found or (prompt[start : match.end()] if edited else None)
        else:  # text, and so are those around it
            literal += [each for _, parts in opened for each in parts]
            opened.clear()
    literal += [each for _, parts in opened for each in parts]
    return None if "|" in literal else found
