"""A1111's prompt syntax: the examples it publishes, and its corners."""

from __future__ import annotations

import itertools
import random

import pytest

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime.prompts.attention import BREAK, Piece, parse_attention

# The examples in the docstring of AUTOMATIC1111/stable-diffusion-webui's parse_prompt_attention.
PUBLISHED: dict[str, list[Piece]] = {
    "normal text": [("normal text", 1.0)],
    "an (important) word": [("an ", 1.0), ("important", 1.1), (" word", 1.0)],
    "(unbalanced": [("unbalanced", 1.1)],
    r"\(literal\]": [("(literal]", 1.0)],
    "(unnecessary)(parens)": [("unnecessaryparens", 1.1)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        ("a ", 1.0),
        ("house", 1.5730000000000004),
        (" ", 1.1),
        ("on", 1.0),
        (" a ", 1.1),
        ("hill", 0.55),
        (", sun, ", 1.1),
        ("sky", 1.4641000000000006),
        (".", 1.1),
    ],
}

CORNERS: dict[str, list[Piece]] = {
    "": [("", 1.0)],
    "()": [("", 1.0)],
    "[less]": [("less", 1 / 1.1)],
    "[unbalanced": [("unbalanced", 1 / 1.1)],
    "closed) never] opened:1.3)": [("closed) never] opened:1.3)", 1.0)],
    "(spaces : 1.5 )": [("spaces ", 1.5)],
    "(signs:-.5)(and:+2.)": [("signs", -0.5), ("and", 2.0)],
    "(square:1.3]": [("square:1.3]", 1.1)],
    "[round:1.3)": [("round:1.3)", 1 / 1.1)],
    "16:9 a: b :c": [("16:9 a: b :c", 1.0)],
    r"a\b \\ \(c:1.3\)": [(r"ab \ (c:1.3)", 1.0)],
    "(nested (twice:2):3)": [("nested ", 3.0), ("twice", 6.0)],
    "a BREAK b": [("a", 1.0), BREAK, ("b", 1.0)],
    "BREAK\n BREAK": [("", 1.0), BREAK, ("", 1.0), BREAK, ("", 1.0)],
    "(a) BREAK (b:2)": [("a", 1.1), ("", 1.0), BREAK, ("", 1.0), ("b", 2.0)],
    "unBREAKable break": [("unBREAKable break", 1.0)],
    "(a BREAK b:1.5)": [("a", 1.5), ("BREAK", -1.5), ("b", 1.5)],  # as there: no end of a chunk, but a word
}


@pytest.mark.parametrize("prompt", [*PUBLISHED, *CORNERS])
def test_pieces_are_a1111s(prompt: str) -> None:
    assert parse_attention(prompt) == {**PUBLISHED, **CORNERS}[prompt]


def test_text_without_brackets_is_one_piece_as_it_stands() -> None:
    generator = random.Random(0)
    for _ in range(1000):
        text = "".join(generator.choice("ab ,.:;'1é猫\n-_<>{}|") for _ in range(generator.randrange(1, 30)))
        assert parse_attention(text) == [(text, 1.0)]


def test_any_brackets_are_read_and_no_letter_is_lost() -> None:
    generator = random.Random(1)
    for _ in range(5000):
        prompt = "".join(generator.choice("ab()[]: ") for _ in range(generator.randrange(30)))
        pieces = parse_attention(prompt)
        assert "".join(text for text, _ in pieces).translate(str.maketrans("", "", "()[]")) == prompt.translate(
            str.maketrans("", "", "()[]")
        )
        assert all(first[1] != second[1] for first, second in itertools.pairwise(pieces))


def test_thousands_of_open_brackets() -> None:
    assert len(parse_attention("(a" * 5000)) == 5000
    with pytest.raises(UsageError, match="weight"):
        parse_attention("(a" * 10_000)  # 1.1 to that power


@pytest.mark.parametrize(
    "prompt", ["(a:1.2.3)", "(a:.)", "(a:..)", f"(a:{'9' * 400})", f"((a:{'9' * 200}):{'9' * 200})"]
)
def test_what_is_no_weight_is_refused(prompt: str) -> None:
    with pytest.raises(UsageError, match="weight in the prompt") as caught:
        parse_attention(prompt)
    assert len(caught.value.got) < 500
    assert caught.value.expected
    assert r"\(" in caught.value.fix
