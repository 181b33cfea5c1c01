"""Prompts of any length, as chunks of what a text encoder reads at once: start, 75 tokens, end and padding.

As A1111 does it (modules/sd_hijack_clip.py of AUTOMATIC1111/stable-diffusion-webui 1.10, with its default settings):
where a prompt goes over the end of a chunk and a comma is among the last 20 tokens, what follows the comma moves into
the next chunk, so that no phrase is cut in two; a textual inversion stays whole; BREAK ends a chunk wherever it is.
A prompt of up to 75 tokens is one chunk, and that is what transformers' CLIPTokenizer gives.
"""

from __future__ import annotations

from dataclasses import dataclass

from sdxl_trt.spec import TextEncoderSpec

_BACKTRACK = 20
"""Tokens before the end of a chunk where a comma may end it (A1111's comma_padding_backtrack)."""

_ENDS = 2
"""Positions that the start and the end token take."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What one text encoder reads at once."""

    ids: tuple[int, ...]
    """[tokens]; beyond the vocabulary, vectors of textual inversions."""
    weights: tuple[float, ...]
    """[tokens]: 1 for start, end and padding."""


class Chunker:
    """Lays tokens out into chunks.

    Args:
        spec: of the text encoder.
        comma: the id of its tokenizer's comma.
    """

    def __init__(self, spec: TextEncoderSpec, comma: int | None) -> None:
        self._spec, self._comma = spec, comma
        self._room = spec.tokens - _ENDS
        self._chunks: list[Chunk] = []
        self._start([], [])

    def add(self, ids: tuple[int, ...], weight: float) -> None:
        """Append tokens that stay together, `room` of them at most."""
        if ids == (self._comma,):
            self._last_comma = len(self._ids)
        elif len(self._ids) == self._room and self._room - self._last_comma <= _BACKTRACK:
            after = self._last_comma + 1
            moved = self._ids[after:], self._weights[after:]
            del self._ids[after:], self._weights[after:]
            self.end_chunk()
            self._start(*moved)
        if len(self._ids) + len(ids) > self._room:
            self.end_chunk()
        self._ids += ids
        self._weights += [weight] * len(ids)

    def end_chunk(self) -> None:
        """Pad the chunk that is being filled, empty or not, and start the next."""
        spec, padding = self._spec, self._room - len(self._ids)
        self._chunks.append(
            Chunk(
                ids=(spec.bos, *self._ids, spec.eos, *[spec.pad] * padding),
                weights=(1.0, *self._weights, *[1.0] * (padding + 1)),
            )
        )
        self._start([], [])

    def finish(self) -> list[Chunk]:
        """All chunks, at least one."""
        if self._ids or not self._chunks:
            self.end_chunk()
        return self._chunks

    def _start(self, ids: list[int], weights: list[float]) -> None:
        self._ids, self._weights = ids, weights
        self._last_comma = -self._spec.tokens - _BACKTRACK  # none
