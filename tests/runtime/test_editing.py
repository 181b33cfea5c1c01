"""What A1111 reads as prompt editing, alternation and composition is refused; what it takes for text is not."""

from __future__ import annotations

import random
import time

import pytest

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime.prompts.editing import find_editing, refuse_editing

# The examples that AUTOMATIC1111/stable-diffusion-webui publishes with get_learned_conditioning_prompt_schedules, and
# at the top of its modules/prompt_parser.py: prompts that it has more than one schedule for, and the others.
PUBLISHED_EDITED = {
    "a [b:3]": "[b:3]",
    "a [b: 3]": "[b: 3]",
    "a [[[b]]:2]": "[[[b]]:2]",
    "[(a:2):3]": "[(a:2):3]",
    "a [b : c : 1] d": "[b : c : 1]",
    "a[b:[c:d:2]:1]e": "[c:d:2]",
    "a [b:.5] c": "[b:.5]",
    "((a][:b:c [d:3]": "[d:3]",
    "[a|(b:1.1)]": "[a|(b:1.1)]",
    "[fe|]male": "[fe|]",
    "[fe|||]male": "[fe|||]",
    "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75]": "[mountain:lake:0.25]",
    "a lake[ in foreground::0.6]": "[ in foreground::0.6]",
    "a lake[ in background:0.25]": "[ in background:0.25]",
}
PUBLISHED_TEXT = ["test", "a [unbalanced"]

EDITED = {
    "[:3]": "[:3]",
    "[a:-1e2 ]": "[a:-1e2 ]",
    "[a|b": None,
    "[a:b:c:3]": None,
    "[[a:b:c:d]:3]": None,
    "[(a:3]": None,
    "[a) b:3]": None,
    "(a|b)": None,
    "(a:b:3)": None,
    "[red: dark]": None,
    "[red:3 or more]": None,
    "16:9 a [b] (c:1.3) [d]": None,
    r"\[a:b:3\] \[a|b\]": None,
    r"[a\:3]": None,
    r"[a\|b]": None,
    "one | two [a:3]": None,  # as there: a | that is no alternation, and nothing is edited
    r"one \| two [a:3]": "[a:3]",
    "[a:b|c:3]": None,
    "([a:3]:1.2) ]": "[a:3]",
    "[[a|b]:c:3]": "[a|b]",
}


@pytest.mark.parametrize(("prompt", "edited"), [*PUBLISHED_EDITED.items(), *EDITED.items()])
def test_editing_is_found_where_a1111_finds_it(prompt: str, edited: str | None) -> None:
    assert find_editing(prompt) == edited


@pytest.mark.parametrize("prompt", PUBLISHED_EDITED)
def test_editing_is_refused_with_a_way_out(prompt: str) -> None:
    with pytest.raises(UsageError, match="prompt editing is not supported") as caught:
        refuse_editing(prompt)
    assert caught.value.got in prompt
    assert r"\[" in caught.value.fix
    refuse_editing(prompt.replace("[", r"\[").replace("]", r"\]"))


@pytest.mark.parametrize("prompt", [*PUBLISHED_TEXT, "a cat and a dog", "SAND ANDROID A_AND", "unbalanced) ] [ ("])
def test_what_is_text_there_is_not_refused(prompt: str) -> None:
    refuse_editing(prompt)


@pytest.mark.parametrize("prompt", ["a cat AND a dog", "a cat AND a dog:1.2", "a,AND\nb", "AND"])
def test_composition_is_refused(prompt: str) -> None:
    with pytest.raises(UsageError, match="AND are not supported") as caught:
        refuse_editing(prompt)
    assert "`and`" in caught.value.fix


def test_emphasis_alone_is_never_editing() -> None:
    generator = random.Random(0)
    for _ in range(3000):
        prompt = "".join(generator.choice("ab()[] 3.") for _ in range(generator.randrange(30)))
        refuse_editing(prompt)


def test_hostile_prompts_are_read_in_time_that_grows_with_length() -> None:
    started = time.monotonic()
    for hostile in ("[" * 200_000, "[" * 100_000 + "]" * 100_000, "[:" * 100_000, "]" * 200_000, "[a|" * 60_000 + ")"):
        assert find_editing(hostile) is None
    assert find_editing("[(a:" * 50_000 + "[b:3]") == "[b:3]"
    assert time.monotonic() - started < 30
