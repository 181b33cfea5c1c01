"""One text encoder: prompts into chunks, and chunks into hidden states."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime.device import Device
from sdxl_trt.runtime.engine import Caller, Engine
from sdxl_trt.runtime.prompts.attention import BREAK, parse_attention
from sdxl_trt.runtime.prompts.chunks import Chunk, Chunker
from sdxl_trt.runtime.prompts.editing import refuse_editing
from sdxl_trt.runtime.prompts.emphasis import INTERPOLATE, KEEP_MEAN, OFF, emphasise
from sdxl_trt.runtime.recent import Recent
from sdxl_trt.runtime.tokenizer import Tokenizer, check_text
from sdxl_trt.spec import TextEncoderSpec

_ROWS = 2
"""Chunks in a call: what every profile takes."""

KEPT = 64
"""Calls whose outputs are kept, the layers that were read alone: 40 MB for full-size SDXL's encoders in float16."""

Encoded = tuple[NDArray[Any], NDArray[Any]]
"""Hidden states and pooled output."""

_Ids = tuple[int, ...]
"""Of a chunk."""
_Outputs = dict[_Ids, tuple[dict[int, NDArray[Any]], NDArray[Any]]]
"""Of chunks: hidden states [tokens, C] by layer, and pooled output [P]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TextEncoder:
    """One text encoder with what turns a prompt into its input."""

    spec: TextEncoderSpec
    tokenizer: Tokenizer
    embeddings: NDArray[Any]
    """[vocabulary, C], float16 or float32; may be a memory map."""
    engine: Engine


class PromptEncoder:
    """A text encoder that runs, the words it was taught, and what it gave for the last prompts.

    The vectors of a textual inversion have ids from the end of the vocabulary on. Each has its ids for good, so what
    is kept by ids stays true when more words come.

    What is kept is whole calls: chunks that run together may differ from chunks that run alone in their last bits, and
    a request gives the same whatever came before it.
    """

    def __init__(self, encoder: TextEncoder, device: Device) -> None:
        self.spec = encoder.spec
        self.encoder, self._call = encoder, Caller(encoder.engine, device)
        self._vectors = np.empty((0, encoder.spec.width), encoder.engine.inputs["embeddings"].dtype)
        self._words: dict[str, tuple[int, ...]] = {}
        self._pattern = re.compile(r"(?!)")  # any of the words; at first, nothing
        self.empty = Chunker(self.spec, None).finish()[0]
        self.forget()

    def forget(self) -> None:
        """Keep nothing of what prompts gave so far."""
        self._kept = Recent[tuple[tuple[_Ids, ...], tuple[int, ...]], _Outputs](KEPT)

    def warm_up(self) -> None:
        """Prepare every number of chunks in a call for good, and run each once."""
        for rows in range(1, _ROWS + 1):
            self._call.warm_up({"rows": rows})

    def check_word(self, name: str) -> None:
        """Refuse a word that means something already.

        Raises:
            UsageError: it is loaded, or one of the tokenizer's own; or it is empty.
        """
        taken = "a word that is loaded already" if name.lower() in self._words else None
        if len(self.encoder.tokenizer.tokens(name)) < 2:
            taken = f"a word that {self.spec.name} has itself" if name else "nothing"
        if taken:
            raise UsageError(
                f"a textual inversion cannot be called {name!r}",
                got=taken,
                expected="a word that means nothing yet",
                fix="give it another: --embedding NAME=FILE, or load_textual_inversion(file, token=NAME)",
            )

    def add_word(self, name: str, vectors: NDArray[np.float32]) -> None:
        """From now on, have vectors [n, C] stand for a word, whatever its case, where it is a word of its own."""
        first = self.spec.vocabulary + len(self._vectors)
        self._vectors = np.concatenate([self._vectors, vectors.astype(self._vectors.dtype)])
        words = {**self._words, name.lower(): tuple(range(first, first + len(vectors)))}
        # The longest first, so that none hides another that begins with it.
        self._words = {word: words[word] for word in sorted(words, key=len, reverse=True)}
        self._pattern = re.compile("|".join(f"({_whole(word)})" for word in self._words), re.IGNORECASE)

    def chunks(self, prompt: str, weighting: str) -> list[Chunk]:
        """A prompt laid out, at least one chunk.

        Raises:
            UsageError: it is no Unicode text, a weight in it is no finite number, or it asks for prompt editing.
        """
        check_text(prompt)
        if weighting != OFF:
            refuse_editing(prompt)
        chunker = Chunker(self.spec, self.encoder.tokenizer.comma)
        for piece in [(prompt, 1.0)] if weighting == OFF else parse_attention(prompt):
            if piece == BREAK:
                chunker.end_chunk()
                continue
            text, weight = piece
            for ids in self._ids(text):
                chunker.add(ids, weight)
        return chunker.finish()

    def encode(self, prompts: Sequence[tuple[Sequence[Chunk], int]], weighting: str) -> list[Encoded]:
        """Run on prompts, each given as its chunks and the layer that is read.

        Returns:
            Per prompt, the weighted hidden states of the layer, chunks one after the other [tokens, C]; and the first
            chunk's pooled output [P], which weights leave alone.
        """
        interpolate = weighting == INTERPOLATE
        chunks = [chunk for parts, _ in prompts for chunk in parts] + [self.empty] * interpolate
        outputs = self._outputs(dict.fromkeys(chunk.ids for chunk in chunks), {layer for _, layer in prompts})

        def weighted(chunk: Chunk, layer: int) -> NDArray[Any]:
            base = outputs[self.empty.ids][0][layer] if interpolate else None
            keep_mean = weighting == KEEP_MEAN
            return emphasise(outputs[chunk.ids][0][layer], chunk.weights, base=base, keep_mean=keep_mean)

        return [
            (np.concatenate([weighted(chunk, layer) for chunk in parts]), outputs[parts[0].ids][1])
            for parts, layer in prompts
        ]

    def _outputs(self, unique: Iterable[_Ids], layers: Iterable[int]) -> _Outputs:
        """What chunks give, each given once; the encoder runs for calls that are not kept."""
        outputs, read = _Outputs(), tuple(sorted(layers))
        chunks = list(unique)
        for start in range(0, len(chunks), _ROWS):
            rows = tuple(chunks[start : start + _ROWS])
            outputs |= self._kept.get((rows, read), functools.partial(self._run, rows, read))
        return outputs

    def _run(self, rows: Sequence[_Ids], layers: Iterable[int]) -> _Outputs:
        """One call."""
        ids = np.array(rows, np.int32)
        dtype, vocabulary = self.encoder.engine.inputs["embeddings"].dtype, self.spec.vocabulary
        taught = ids >= vocabulary
        embeddings = self.encoder.embeddings[np.where(taught, 0, ids)].astype(dtype)
        embeddings[taught] = self._vectors[ids[taught] - vocabulary]
        pool_index = np.array([self.encoder.tokenizer.pool_index(row) for row in ids], np.int32)
        outputs = self._call({"rows": len(ids)}, embeddings=embeddings, pool_index=pool_index)
        hidden, pooled = outputs["hidden"], outputs["pooled"]
        return {
            each: ({layer: hidden[layer, row].copy() for layer in layers}, pooled[row].copy())
            for row, each in enumerate(rows)
        }

    def _ids(self, text: str) -> Iterator[tuple[int, ...]]:
        """The tokens of a text one by one, those of a taught word together."""
        words, end = list(self._words.values()), 0
        for match in self._pattern.finditer(text):
            yield from zip(self.encoder.tokenizer.tokens(text[end : match.start()]))
            yield words[(match.lastindex or 0) - 1]
            end = match.end()
        yield from zip(self.encoder.tokenizer.tokens(text[end:]))


def _whole(word: str) -> str:
    """A pattern for a word where it is not part of a longer one."""
    before, after = (
        rf"(?{side}\w)" if re.match(r"\w", end) else "" for side, end in (("<!", word[0]), ("!", word[-1]))
    )
    return f"{before}{re.escape(word)}{after}"
