"""CLIP's tokenizers for single files, which have none: from OpenAI's list of byte pairs, as CLIP itself builds them.

The list, data/bpe_simple_vocab_16e6.txt.gz, is the one of https://github.com/openai/CLIP (clip/simple_tokenizer.py);
SDXL's two tokenizers are made of it and differ in the token they pad with.
"""

from __future__ import annotations

import gzip
from pathlib import Path

from sdxl_trt.export.tokenizers import CanonicalTokenizer, canonical

SPECIAL = ("<|startoftext|>", "<|endoftext|>")

PADS = {"text_encoder": "<|endoftext|>", "text_encoder_2": "!"}
"""What the tokenizer of each text encoder pads with."""

SIZE = 49408
"""Tokens: 256 bytes, the same at the end of a word, 48,894 merges, and two that start and end a text."""

_LIST = Path(__file__).with_name("data") / "bpe_simple_vocab_16e6.txt.gz"


def clip_tokenizer(encoder: str) -> CanonicalTokenizer:
    """The tokenizer of SDXL's 'text_encoder' or 'text_encoder_2'."""
    from transformers import AddedToken, CLIPTokenizer  # it takes over a second to import

    vocabulary, merges = clip_vocabulary()
    start, end = (AddedToken(token, normalized=True) for token in SPECIAL)  # as in SDXL's tokenizer_config.json
    tokenizer = CLIPTokenizer(
        vocab=vocabulary, merges=merges, bos_token=start, eos_token=end, unk_token=end, pad_token=PADS[encoder]
    )
    return canonical(tokenizer)


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's tokens with their ids, and the pairs to merge, in order of preference."""
    lines = gzip.decompress(_LIST.read_bytes()).decode().split("\n")
    letters = _letters()
    merges = [(first, second) for first, second in map(str.split, lines[1 : SIZE - 2 * len(letters) - 1])]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    return {token: i for i, token in enumerate([*tokens, *SPECIAL])}, merges


def _letters() -> list[str]:
    """A printable letter for each byte, in CLIP's order: the printable ones first, then the others from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
