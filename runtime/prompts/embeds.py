"""Prompts as what the text encoders make of them: computed here, blended, or brought by the caller."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import PromptTooLong, UsageError
from sdxl_trt.spec import ModelSpec, Profile

Pairs = Sequence[tuple[str, float]]
"""Prompts and how much of each goes into a blend."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptEmbeds:
    """One prompt, encoded: diffusers' prompt_embeds[0] and pooled_prompt_embeds[0]."""

    hidden: NDArray[Any]
    """[tokens, D]: the text encoders' hidden states side by side, the chunks of a long prompt one after the other."""
    pooled: NDArray[Any]
    """[P]: the last encoder's pooled output of the first chunk."""

    def zeros(self) -> PromptEmbeds:
        """What stands for no negative prompt beside this one."""
        return PromptEmbeds(hidden=np.zeros_like(self.hidden), pooled=np.zeros_like(self.pooled))


def check_embeds(
    name: str, embeds: object, texts: Iterable[object], model: ModelSpec, profile: Profile
) -> PromptEmbeds | None:
    """A caller's own embeddings; None where there are none.

    Args:
        name: of the prompt they stand for: prompt or negative_prompt.
        embeds: what was given for it.
        texts: the prompts that they replace, which must not be given too.
        model: gives the widths.
        profile: gives the number of tokens.

    Raises:
        UsageError: of another type or shape, not real numbers, or not finite; or texts are given too.
        PromptTooLong: more tokens than the engines take.
    """
    if embeds is None:
        return None
    if not isinstance(embeds, PromptEmbeds):
        fix = f"{name}_embeds=PromptEmbeds(hidden=…, pooled=…), or what Pipeline.encode gave"
        raise _wrong(f"{name}_embeds", type(embeds).__name__, "PromptEmbeds", fix)
    if any(text is not None for text in texts):
        raise _wrong(f"{name}_embeds", f"{name} as text too", "one of the two", f"leave {name} and {name}_2 out")
    unet = model.unet
    _check_array(f"{name}_embeds.hidden", embeds.hidden, ("tokens", unet.text))
    _check_array(f"{name}_embeds.pooled", embeds.pooled, (unet.pooled,))
    tokens = len(embeds.hidden)
    if tokens > profile.tokens.max:
        raise too_long(f"{name}_embeds", f"{tokens} tokens", tokens, model, profile.tokens.max)
    if tokens < profile.tokens.min:
        expected = f"{profile.tokens.min} to {profile.tokens.max} tokens, which the engines were built for"
        raise _wrong(f"{name}_embeds", f"{tokens} tokens", expected, "pad the prompt before it is encoded")
    return embeds


def too_long(what: str, got: str, tokens: int, model: ModelSpec, most: int) -> PromptTooLong:
    """The error for more tokens (start, end and padding included) than engines take, which is `most`."""
    each = model.text_encoders[0].tokens
    return PromptTooLong(
        f"{what} is too long for these engines",
        got=got,
        expected=f"at most {most} tokens: {most // each} chunks of {each}, start and end included",
        fix=f"shorten it, or build engines that take it: sdxl-trt build … --prompt-chunks {math.ceil(tokens / each)}",
    )


def check_pairs(prompt: Any) -> Pairs:
    """A prompt, or the parts of a blend, as pairs of text and weight.

    Raises:
        UsageError: neither; or weights that are not finite, or whose sum is not positive.
    """
    match prompt:
        case str():
            return [(prompt, 1.0)]
        case [*pairs] if all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
            weights = [weight for _, weight in pairs]
            numbers = all(isinstance(weight, int | float) and math.isfinite(weight) for weight in weights)
            if numbers and all(isinstance(text, str) for text, _ in pairs) and math.fsum(weights) > 0:
                return [(text, float(weight)) for text, weight in pairs]
    expected = "text, or pairs of text and a finite weight, whose weights have a positive sum"
    raise _wrong("prompt", f"{prompt!r:.80}", expected, 'encode([("a cat", 0.7), ("a dog", 0.3)])')


def blend(parts: Sequence[PromptEmbeds], weights: Sequence[float]) -> PromptEmbeds:
    """The weighted mean of prompts of one length, pooled outputs too; weights are scaled to a sum of 1.

    As compel's `.blend()` does (damian0815/compel, EmbeddingsProvider.lerp_embeddings with normalize).

    Args:
        parts: of equal shapes.
        weights: one for each, as of `check_pairs`.
    """
    factors = np.array(weights, np.float64) / math.fsum(weights)

    def mean(arrays: list[NDArray[Any]]) -> NDArray[Any]:
        return np.tensordot(factors, np.stack(arrays).astype(np.float64), 1).astype(arrays[0].dtype)

    return PromptEmbeds(hidden=mean([part.hidden for part in parts]), pooled=mean([part.pooled for part in parts]))


def _check_array(name: str, array: object, shape: tuple[int | str, ...]) -> None:
    expected = f"a finite array of floats, {list(shape)}".replace("'", "")
    if not isinstance(array, np.ndarray):
        raise _wrong(name, type(array).__name__, expected, "a numpy array; of a tensor, tensor.float().cpu().numpy()")
    sizes = array.shape == tuple(
        actual if isinstance(size, str) else size for size, actual in zip(shape, array.shape, strict=False)
    )
    if array.dtype.kind != "f" or not sizes or not np.isfinite(array).all():
        got = f"{array.dtype} {list(array.shape)}" + (", not finite" if sizes and array.dtype.kind == "f" else "")
        raise _wrong(name, got, expected, "embeddings of this model, one prompt without a batch axis")


def _wrong(what: str, got: str, expected: str, fix: str) -> UsageError:
    return UsageError(f"{what} cannot be used", got=got, expected=expected, fix=fix)
