"""What `sdxl-trt run` can be told about how prompts are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdxl_trt.files import sha256_of

if TYPE_CHECKING:
    from sdxl_trt.runtime.maker import Maker

Word = tuple[str, Path]
"""A word and the file of its textual inversion."""


class WordType(click.ParamType[Word]):
    """`NAME=FILE`."""

    name = "NAME=FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Word:
        """Parse, with click's own way to complain."""
        if isinstance(value, tuple):
            return value
        word, separator, file = value.partition("=")
        if not (word.strip() and separator and file):
            self.fail(f"{value!r} is not {self.name}, as cat-toy=learned_embeds.safetensors", param, ctx)
        return word.strip(), Path(file)


def prompt_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that makes pictures: `embedding`, `weighting` and `clip_skip`."""
    weighting = "How (word:1.3) and [word] act: a1111, a1111-no-norm, interpolate; or off, brackets are text."
    for option in (
        click.option("--clip-skip", type=int, help="Further layers of the text encoders to leave out."),
        click.option("--weighting", default="a1111", show_default=True, metavar="NAME", help=weighting),
        click.option(
            "--embedding", multiple=True, type=WordType(), help="Textual inversion (.safetensors); repeat for several."
        ),
    ):
        command = option(command)
    return command


def load_words(maker: Maker, words: Sequence[Word]) -> dict[str, str]:
    """Load textual inversions. Returns each word's file as its SHA-256."""
    return {maker.load_textual_inversion(file, token=word): sha256_of(file) for word, file in words}
