"""Whether an answer is the right one: as many pictures as were asked for, of that request and of no other."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from PIL import Image

from benchmarks.soaking.ledger import ANSWERED, PASSED, REFUSED, TAKEN_BACK
from benchmarks.soaking.mix import A1111, Wish
from benchmarks.soaking.wire import Answer
from sdxl_trt.runtime.png import A1111_KEYWORD, parse_parameters

NEAR: Final = 1
"""Levels of 255 that the same picture may differ by when it is made again, among other pictures."""
_ENDS: Final = {429: REFUSED, 499: TAKEN_BACK, 504: PASSED}
_ENDS_OF_STREAMS: Final = {"cancelled": TAKEN_BACK, "deadline_passed": PASSED}
"""By codes of errors, once a stream was begun."""


class Wrong(Exception):
    """An answer that is not what was asked for."""


class Twice(Wrong):
    """More than one answer."""


def judge(wish: Wish, answer: Answer) -> tuple[str, list[bytes]]:
    """How a request ended; and its pictures, where it was answered by them.

    Raises:
        Wrong: by no answer that it may have.
        Twice: something came more than once.
    """
    if answer.surplus:
        raise Twice(f"{len(answer.surplus)} bytes after its end: {answer.surplus[:80]!r}")
    headers = answer.head.headers
    if headers.get("x-request-id") != wish.id:
        raise Wrong(f"an answer to {headers.get('x-request-id')!r}")
    if answer.status == 429 and not headers.get("retry-after", "").isdecimal():
        raise Wrong("it is told to come again, and not when")
    if answer.status in _ENDS:
        return _ENDS[answer.status], []
    if answer.status != 200:
        raise Wrong(f"status {answer.status}: {answer.body[:300]!r}")
    try:
        return _pictures(wish, answer)
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise Wrong(f"it cannot be read: {error!r}") from error


def events(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Server-sent events: their kinds and what they say.

    Raises:
        ValueError: there is something else.
    """
    found = list[tuple[str, dict[str, Any]]]()
    blocks = body.decode().split("\n\n")
    if blocks.pop():
        raise ValueError("the last event has no end")
    for block in blocks:
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((lines["event"], json.loads(lines["data"])))
    return found


def difference(one: bytes, other: bytes) -> int:
    """Levels that two pictures differ by at most; 255 where their sizes differ.

    Args:
        one, other: files.
    """
    first, second = (np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).astype(int) for file in (one, other))
    return int(np.abs(first - second).max()) if first.shape == second.shape else 255


def _pictures(wish: Wish, answer: Answer) -> tuple[str, list[bytes]]:
    """The same, where something came that should be pictures."""
    said = events(answer.body) if wish.stream else []
    if said and said[-1][0] == "error":
        return _ENDS_OF_STREAMS[said[-1][1]["error"]["code"]], []
    named = _streamed(wish, said) if wish.stream else _whole(wish, answer.json())
    seeds = [seed for seed, _ in named]
    if seeds != wish.seeds:
        raise Wrong(f"pictures of seeds {seeds}, not {wish.seeds}")
    for seed, file in named:
        _check_file(wish, seed, file)
    return ANSWERED, [file for _, file in named]


def _whole(wish: Wish, told: Mapping[str, Any]) -> list[tuple[int, bytes]]:
    if wish.api == A1111:
        seeds, files = json.loads(told["info"])["all_seeds"], told["images"]
    else:
        seeds, files = [each["seed"] for each in told["data"]], [each["b64_json"] for each in told["data"]]
    return [(seed, base64.b64decode(file, validate=True)) for seed, file in zip(seeds, files, strict=True)]


def _streamed(wish: Wish, said: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[int, bytes]]:
    """Completed pictures; the partial ones must be of them, in their order and not too many."""
    done, partials = dict[int, tuple[int, bytes]](), list[tuple[int, int]]()
    for kind, fields in said:
        index, file = fields["image_index"], base64.b64decode(fields["b64_json"], validate=True)
        if kind.endswith(".partial_image"):
            partials.append((index, fields["partial_image_index"]))
            _check_picture(wish, file)
        elif index in done:
            raise Twice(f"picture {index} came twice")
        else:
            done[index] = fields["seed"], file
    if len(set(partials)) != len(partials):
        raise Twice(f"partial pictures {partials}")
    if any(number >= wish.partials for _, number in partials):
        raise Wrong(f"partial pictures {partials}, of {wish.partials} that were asked for")
    return [done[index] for index in sorted(done)]


def _check_file(wish: Wish, seed: int, file: bytes) -> None:
    """It is of the right kind and size; and a PNG file says that it was made from what this request asked for."""
    image = _check_picture(wish, file)
    if wish.kind == "png":
        prompt, _, settings = parse_parameters(str(image.info.get(A1111_KEYWORD, "")))
        said = prompt, settings.get("Seed"), settings.get("Steps")
        if said != (wish.prompt, str(seed), str(wish.steps)):
            raise Wrong(f"a picture of {said}, not of {(wish.prompt, seed, wish.steps)}")


def _check_picture(wish: Wish, file: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(file), formats=[wish.kind])
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise Wrong(f"no {wish.kind} file: {error}") from error
    if image.size != wish.size:
        raise Wrong(f"a picture of {image.size}, not {wish.size}")
    return image
