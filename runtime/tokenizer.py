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

from sdxl_trt.errors import BundleError, PromptTooLong, UsageError
from sdxl_trt.spec.model import TextEncoderSpec

_ENDS = 2  # positions that the start and the end token take
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

    def encode(self, prompt: str) -> NDArray[np.int32]:
        """Token ids, int32 `[tokens]`: start token, prompt, end token, and padding to the encoder's length.

        As in transformers, a special token that is spelt out in the prompt becomes that token, and control
        characters are characters like others.

        Raises:
            PromptTooLong: it has more tokens than fit; the message quotes what would have to go.
            UsageError: it is no text, or holds half a surrogate pair, which has no UTF-8 form.
        """
        encoding = self._backend.encode(_checked(prompt), add_special_tokens=False)
        if len(encoding.ids) > self._spec.tokens - _ENDS:
            raise self._too_long(prompt, encoding)
        ids = np.full(self._spec.tokens, self._spec.pad, np.int32)
        used = [self._spec.bos, *encoding.ids, self._spec.eos]
        ids[: len(used)] = used
        return ids

    def pool_index(self, ids: NDArray[np.int32]) -> int:
        """The position whose hidden state is pooled, of ids `[tokens]`.

        'argmax' is the place of the largest id, which in CLIP's own vocabulary is the end token (and in a
        vocabulary with added tokens need not be); 'eos' is the first end token, or 0 if there is none.
        """
        return int(np.argmax(ids if self._spec.pool_at == "argmax" else ids == self._spec.eos))

    def _too_long(self, prompt: str, encoding: Any) -> PromptTooLong:
        room = self._spec.tokens - _ENDS
        # Several tokens may share one character; one that is not read whole is dropped whole.
        dropped = prompt[encoding.offsets[room][0] :]
        return PromptTooLong(
            f"the prompt is too long for {self._spec.name}",
            got=f"{len(encoding.ids)} tokens, of which these would be dropped: {dropped!r}",
            expected=f"at most {room} tokens ({self._spec.tokens} positions, of which start and end take {_ENDS})",
            fix="shorten the prompt; prompts of any length come in a later version",
        )


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


def _checked(prompt: str) -> str:
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
    return prompt
