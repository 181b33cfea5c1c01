"""A checkpoint's tokenizer folder as one `tokenizer.json`, so that a host needs no transformers.

Two forms of the folder are in use: vocab.json with merges.txt (SDXL's own repositories) and tokenizer.json alone
(what transformers 5 writes). Both go through transformers' own `CLIPTokenizer`, since that is what diffusers reads
them with and it is not the plain reading of either: of a tokenizer.json it takes the vocabulary, the merges and the
added tokens, and builds normaliser and splitting anew; and it makes every special token, the pad token too, one that
is matched in the text. So '!' within a prompt is one thing for SDXL's second tokenizer, which pads with it, and
another for its first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdxl_trt.errors import CheckpointError

_FORMS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
_SPECIALS = ("tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True, kw_only=True)
class CanonicalTokenizer:
    """A tokenizer in the form of the `tokenizers` library, and the ids its text encoder's spec needs."""

    json: bytes
    """tokenizer.json without truncation and padding; the same bytes for the same tokenizer."""
    vocabulary: int
    """Every id is below this: the token embedding table must have at least as many rows."""
    bos: int
    eos: int
    pad: int


def canonical_tokenizer(folder: Path) -> CanonicalTokenizer:
    """Read a tokenizer folder of either form, with neither network access nor writing.

    Where a folder has both forms, tokenizer.json counts, as for transformers.

    Raises:
        CheckpointError: files are missing or damaged, or a special token is not part of the vocabulary, or the
            tokenizer asks for something that a host does not do (padding on the left, special tokens as plain text).
    """
    _expect_files(folder)
    from transformers import CLIPTokenizer  # it takes over a second to import

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever json, transformers and the tokenizers library raise
        raise CheckpointError(
            f"the tokenizer in {folder} is damaged",
            got=f"{type(error).__name__}: {error}",
            expected="a CLIP tokenizer that transformers can read",
            fix="download the model again",
        ) from error
    _expect_supported(tokenizer, folder)
    return canonical(tokenizer)


def canonical(tokenizer: Any) -> CanonicalTokenizer:
    """A transformers `CLIPTokenizer` in canonical form."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return CanonicalTokenizer(
        json=backend.to_str().encode(),
        vocabulary=max(backend.get_vocab().values()) + 1,
        bos=tokenizer.bos_token_id,
        eos=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
    )


def _expect_files(folder: Path) -> None:
    """Refuse what transformers would look for on the network, or fill with defaults without a word."""
    here = {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()
    if any(here.issuperset(form) for form in _FORMS) and not here.isdisjoint(_SPECIALS):
        return
    raise CheckpointError(
        f"{folder} has no complete tokenizer",
        got=", ".join(sorted(here)) or ("an empty folder" if folder.is_dir() else "no such folder"),
        expected=f"{' or '.join(' with '.join(form) for form in _FORMS)}; and {' or '.join(_SPECIALS)} "
        "(which say how to pad)",
        fix="download the model again, with all files of its tokenizer folders",
    )


def _expect_supported(tokenizer: Any, folder: Path) -> None:
    vocabulary = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    wrong = [
        f"{name} token {token!r} is not in the vocabulary"
        for name in ("bos", "eos", "pad", "unk")
        if (token := getattr(tokenizer, f"{name}_token")) not in vocabulary
    ]
    if tokenizer.padding_side != "right":
        wrong.append(f"padding_side {tokenizer.padding_side!r}")
    if tokenizer.split_special_tokens:
        wrong.append("split_special_tokens")
    if wrong:
        raise CheckpointError(
            f"the tokenizer in {folder} cannot be exported",
            got="; ".join(wrong),
            expected="special tokens that are in the vocabulary and kept whole in the text, padding on the right",
            fix="take tokenizer and tokenizer_2 from the model's own repository",
        )
