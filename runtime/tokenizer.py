"""Prompts into token ids, exactly as transformers' CLIPTokenizer makes them, without transformers.

Sources: Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units" (byte-pair encoding),
arXiv:1508.07909; Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (CLIP),
arXiv:2103.00020; and transformers 5.23, models/clip: tokenization_clip.py, modeling_clip.py (`CLIPTextModel`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Backend

from sdxl_trt.errors import BundleError, UsageError
from sdxl_trt.spec.model import TextEncoderSpec

_POOLING = ("argmax", "eos")


class Tokenizer:
    """The tokenizer of one text encoder.

    Args:
        tokenizer_json: the text of a tokenizer.json. What it says of truncation and padding is not used.
        spec: of the text encoder.

    Raises:
        BundleError: the text is damaged, or is not of this text encoder.
    """

    def __init__(self, tokenizer_json: bytes, spec: TextEncoderSpec) -> None:
        self._spec = spec
        self._backend = _load(tokenizer_json, spec)

    @property
    def comma(self) -> int | None:
        """The id of a comma that ends a word, where the vocabulary has one."""
        comma: int | None = self._backend.token_to_id(",</w>")
        return comma

    def tokens(self, text: str) -> list[int]:
        """The ids of a text (as of `check_text`), without start and end.

        As in transformers, a special token that is spelt out in the text becomes that token, and control characters
        are characters like others.
        """
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def pool_index(self, ids: NDArray[np.int32]) -> int:
        """The position whose hidden state is pooled, of ids `[tokens]`.

        'argmax' is the place of the largest id, which in CLIP's own vocabulary is the end token (and in a
        vocabulary with added tokens need not be); 'eos' is the first end token, or 0 if there is none. Ids beyond the
        vocabulary are never it: transformers' argmax takes them, and calls that wrong itself (its pull request
        24773); A1111 and those who train textual inversions with kohya-ss/sd-scripts pool at the end token.
        """
        known = np.where(ids < self._spec.vocabulary, ids, -1)
        return int(np.argmax(known if self._spec.pool_at == "argmax" else known == self._spec.eos))


def _load(tokenizer_json: bytes, spec: TextEncoderSpec) -> Any:
    try:
        backend = Backend.from_buffer(tokenizer_json)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the library's Rust side is not an Exception
        raise _not_usable(spec, str(error), "the text of a tokenizer.json") from error
    backend.no_truncation()
    backend.no_padding()
    ids = set(backend.get_vocab().values())
    if not ids.issuperset({spec.bos, spec.eos, spec.pad}) or max(ids) >= spec.vocabulary:
        got = f"{len(ids)} ids up to {max(ids, default='none')}"
        expected = f"ids below {spec.vocabulary}, with {spec.bos} (start), {spec.eos} (end) and {spec.pad} (padding)"
        raise _not_usable(spec, got, expected)
    if spec.pool_at not in _POOLING:
        raise _not_usable(spec, f"pool_at {spec.pool_at!r}", " or ".join(_POOLING))
    return backend


def _not_usable(spec: TextEncoderSpec, got: str, expected: str) -> BundleError:
    return BundleError(
        f"the tokenizer of {spec.name} cannot be used",
        got=got,
        expected=expected,
        fix="build the bundle again, or copy it again from where it was built",
    )


def check_text(prompt: object) -> None:
    """Refuse what no tokenizer reads.

    Raises:
        UsageError: it is no text, or holds half a surrogate pair, which has no UTF-8 form.
    """
    if not isinstance(prompt, str):
        raise UsageError(
            "the prompt is not text",
            got=f"{prompt!r:.80} ({type(prompt).__name__})",
            expected="one string",
            fix="give one prompt at a time, '' for an empty one",
        )
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            "the prompt is not valid Unicode text",
            got=f"half a surrogate pair, {prompt[error.start]!r}, at character {error.start}",
            expected="text that has a UTF-8 form",
            fix="decode the prompt's source as the encoding it is in",
        ) from error
