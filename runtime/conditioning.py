"""Prompts into what the UNet is conditioned on, as diffusers' StableDiffusionXLPipeline.encode_prompt does (0.42.1).

Where that stops at 77 tokens, prompts go on here in chunks (see `sdxl_trt.runtime.prompts.chunks`), and the shorter of
prompt and negative prompt is lengthened by the encoded empty prompt, as compel and A1111 (pad_cond_uncond) do.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import PromptTooLong, UsageError
from sdxl_trt.runtime.device import Device
from sdxl_trt.runtime.prompts.chunks import Chunk
from sdxl_trt.runtime.prompts.embeds import PromptEmbeds, too_long
from sdxl_trt.runtime.prompts.emphasis import OFF
from sdxl_trt.runtime.prompts.encoder import PromptEncoder, TextEncoder
from sdxl_trt.runtime.prompts.inversion import Inversion
from sdxl_trt.runtime.prompts.layers import layer
from sdxl_trt.runtime.request import MicroConditions, Resolved
from sdxl_trt.runtime.slots import Conditioning
from sdxl_trt.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt to encode."""

    texts: tuple[str, str]
    """For the first and the second text encoder."""
    clip_skip: int = 0


class Conditioner:
    """The text encoders of a model, run one after the other on all the prompts of a request.

    Args:
        encoders: of the model, in its order.
        device: where they run.
        model: says what stands for a negative prompt that is not given.
        most_tokens: that the UNet's engine takes.
        other: of another model; text encoders that are the same objects share their buffers and words.
    """

    def __init__(
        self,
        encoders: Sequence[TextEncoder],
        device: Device,
        *,
        model: ModelSpec,
        most_tokens: int,
        other: Conditioner | None = None,
    ) -> None:
        there = {id(each.encoder): each for each in other._encoders} if other else {}
        self._encoders: list[PromptEncoder] = [
            there.get(id(encoder)) or PromptEncoder(encoder, device) for encoder in encoders
        ]
        self._own = [each for each in self._encoders if each not in there.values()]
        self._model, self._most_tokens = model, most_tokens
        self._dtype = np.dtype(encoders[0].engine.outputs["hidden"].dtype)

    def __call__(self, settings: Resolved) -> tuple[Conditioning, Conditioning | None]:
        """What the prompt's row and the negative prompt's are conditioned on; None for the latter without guidance.

        Both have the same number of tokens.

        Raises:
            PromptTooLong: more tokens than the engines take.
            UsageError: a weight in a prompt is no number, or embeddings cannot be brought to the other prompt's length.
            RunError: an engine failed.
        """
        given = settings.prompt_embeds
        prompts: list[Prompt | PromptEmbeds] = [
            given or Prompt(texts=(settings.prompt, settings.prompt_2), clip_skip=settings.clip_skip)
        ]
        if settings.guided:
            prompts += self._negative(settings)
        embeds = self.encode(prompts, settings.weighting)
        scale = settings.guidance if isinstance(settings.guidance, float) else 1.0  # one number where it is told
        told = _guidance_embedding(scale, self._model.unet.guidance_embedding).astype(self._dtype)
        positive = _condition(embeds[0], settings.micro, told)
        if not settings.guided:
            return positive, None
        negative = embeds[1] if len(embeds) > 1 else embeds[0].zeros()
        return positive, _condition(negative, settings.negative_micro, told)

    def encode(self, prompts: Sequence[Prompt | PromptEmbeds], weighting: str) -> list[PromptEmbeds]:
        """Encode those prompts that are not yet, and lengthen all to the longest.

        Raises:
            PromptTooLong, UsageError, RunError: as for a call.
        """
        encoded = iter(self._encode([prompt for prompt in prompts if isinstance(prompt, Prompt)], weighting))
        embeds = [next(encoded) if isinstance(prompt, Prompt) else self._cast(prompt) for prompt in prompts]
        tokens = max(len(each.hidden) for each in embeds)
        return [self._lengthened(each, tokens, prompt) for each, prompt in zip(embeds, prompts, strict=True)]

    def warm_up(self) -> None:
        """Prepare the text encoders that are not another's, and run them once."""
        for encoder in self._own:
            encoder.warm_up()

    def forget(self) -> None:
        """Encode every prompt anew from now on, as if it had never been seen."""
        for encoder in self._encoders:
            encoder.forget()

    def add(self, inversion: Inversion) -> None:
        """Let a word stand for its vectors in every prompt from now on, in text encoders that are not another's.

        Raises:
            UsageError: the word means something already.
        """
        found = ((encoder, inversion.vectors.get(encoder.spec.name)) for encoder in self._own)
        taught = [(encoder, vectors) for encoder, vectors in found if vectors is not None]
        for encoder, _ in taught:
            encoder.check_word(inversion.name)
        for encoder, vectors in taught:
            encoder.add_word(inversion.name, vectors)

    def _negative(self, settings: Resolved) -> list[Prompt | PromptEmbeds]:
        """The negative prompt; nothing where it is zeros. Clip skip is not for it, in diffusers."""
        if settings.negative_prompt_embeds:
            return [settings.negative_prompt_embeds]
        if settings.negative_prompt is None and self._model.zero_negative:
            return []
        text = settings.negative_prompt or ""
        return [Prompt(texts=(text, settings.negative_prompt_2 or text))]

    def _encode(self, prompts: list[Prompt], weighting: str) -> list[PromptEmbeds]:
        """Each in as many tokens as it needs."""
        laid_out = [self._chunks(prompt, weighting) for prompt in prompts]
        layers = [layer(prompt.clip_skip) for prompt in prompts]
        outputs = [
            encoder.encode(list(zip([chunks[place] for chunks in laid_out], layers, strict=True)), weighting)
            for place, encoder in enumerate(self._encoders)
        ]
        return [
            PromptEmbeds(hidden=np.concatenate([hidden for hidden, _ in parts], axis=-1), pooled=parts[-1][1])
            for parts in zip(*outputs, strict=True)
        ]

    def _chunks(self, prompt: Prompt, weighting: str) -> list[list[Chunk]]:
        """Chunks for each encoder, as many for one as for the other."""
        texts = prompt.texts[: len(self._encoders)]
        chunks = [encoder.chunks(text, weighting) for encoder, text in zip(self._encoders, texts, strict=True)]
        for encoder, text, parts in zip(self._encoders, texts, chunks, strict=True):
            if len(parts) * encoder.spec.tokens > self._most_tokens:
                raise self._too_long(encoder, text, len(parts), weighting)
        count = max(map(len, chunks))
        return [
            parts + [encoder.empty] * (count - len(parts))
            for encoder, parts in zip(self._encoders, chunks, strict=True)
        ]

    def _too_long(self, encoder: PromptEncoder, text: str, count: int, weighting: str) -> PromptTooLong:
        most = self._most_tokens // encoder.spec.tokens
        ends = range(len(text) + 1)
        fitting = bisect.bisect_right(ends, most, key=lambda end: len(encoder.chunks(text[:end], weighting))) - 1
        got = f"{count} chunks, of which this would be dropped: {text[fitting:][:200]!r}"
        return too_long("the prompt", got, count * encoder.spec.tokens, self._model, self._most_tokens)

    def _lengthened(self, embeds: PromptEmbeds, tokens: int, prompt: Prompt | PromptEmbeds) -> PromptEmbeds:
        """The same followed by empty prompts."""
        missing, each = tokens - len(embeds.hidden), self._model.text_encoders[0].tokens
        if not missing:
            return embeds
        if missing % each:
            raise UsageError(
                "prompt and negative prompt cannot be brought to one length",
                got=f"{len(embeds.hidden)} and {tokens} tokens",
                expected=f"the same, or a difference that is a multiple of {each}",
                fix="give prompt_embeds and negative_prompt_embeds of the same length",
            )
        clip_skip = prompt.clip_skip if isinstance(prompt, Prompt) else 0
        empty = self._encode([Prompt(texts=("", ""), clip_skip=clip_skip)], OFF)[0]
        return PromptEmbeds(
            hidden=np.concatenate([embeds.hidden, *[empty.hidden] * (missing // each)]), pooled=embeds.pooled
        )

    def _cast(self, embeds: PromptEmbeds) -> PromptEmbeds:
        """A caller's, in the engines' dtype."""
        return PromptEmbeds(hidden=embeds.hidden.astype(self._dtype), pooled=embeds.pooled.astype(self._dtype))


def _condition(embeds: PromptEmbeds, micro: MicroConditions, told: NDArray[Any]) -> Conditioning:
    return Conditioning(text=embeds.hidden, pooled=embeds.pooled, time_ids=micro.time_ids(), guidance_embedding=told)


def _guidance_embedding(guidance: float, width: int) -> NDArray[np.float32]:
    """The guidance as sines and cosines [G], for UNets that were distilled with it (arXiv 2310.04378).

    As diffusers' get_guidance_scale_embedding of guidance − 1, in float32.
    """
    half = width // 2
    if not half:
        return np.zeros(width, np.float32)
    rate = np.float32(np.log(10000.0) / max(half - 1, 1))
    angles = np.float32(1000 * (guidance - 1)) * np.exp(np.arange(half, dtype=np.float32) * -rate)
    return np.concatenate([np.sin(angles), np.cos(angles), np.zeros(width % 2, np.float32)])
