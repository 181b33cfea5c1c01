"""Prompts into what the UNet is conditioned on, as diffusers' StableDiffusionXLPipeline.encode_prompt does (0.42.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.device import Device
from sdxl_trt.runtime.engine import Caller, Engine
from sdxl_trt.runtime.request import MicroConditions, Resolved
from sdxl_trt.runtime.slots import Conditioning
from sdxl_trt.runtime.tokenizer import Tokenizer
from sdxl_trt.spec import TextEncoderSpec

_LAYER = -2
"""SDXL reads the hidden states before the last layer."""

Encoded = tuple[NDArray[Any], NDArray[Any]]
"""A prompt's hidden states [tokens, C] and pooled output [P]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TextEncoder:
    """One text encoder with what turns a prompt into its input."""

    spec: TextEncoderSpec
    tokenizer: Tokenizer
    embeddings: NDArray[Any]
    """[vocabulary, C], float16 or float32; may be a memory map."""
    engine: Engine


class Conditioner:
    """The text encoders of a model, run one after the other on all the prompts of a request."""

    def __init__(self, encoders: Sequence[TextEncoder], device: Device, *, zero_negative: bool) -> None:
        self._encoders = [(encoder, Caller(encoder.engine, device)) for encoder in encoders]
        self._zero_negative = zero_negative

    def __call__(self, settings: Resolved) -> tuple[Conditioning, Conditioning | None]:
        """What the prompt's row and the negative prompt's are conditioned on; None for the latter without guidance.

        Raises:
            RunError: an engine failed.
        """
        pairs = [(settings.prompt, settings.prompt_2)]
        encoded_negative = settings.guided and not (settings.negative_prompt is None and self._zero_negative)
        if encoded_negative:
            negative = settings.negative_prompt or ""
            pairs.append((negative, settings.negative_prompt_2 or negative))
        encoded = self._encode(pairs)
        prompt = _condition(encoded[0], settings.micro)
        if not settings.guided:
            return prompt, None
        if encoded_negative:
            return prompt, _condition(encoded[1], settings.negative_micro)
        text, pooled = encoded[0]
        return prompt, _condition((np.zeros_like(text), np.zeros_like(pooled)), settings.negative_micro)

    def _encode(self, pairs: list[tuple[str, str]]) -> list[Encoded]:
        """Per pair of prompts: the encoders' hidden states side by side [tokens, D], and the last one's pooled [P]."""
        outputs = [
            _run(encoder, caller, [pair[position] for pair in pairs])
            for position, (encoder, caller) in enumerate(self._encoders)
        ]
        return [
            (np.concatenate([hidden for hidden, _ in parts], axis=-1), parts[-1][1])
            for parts in zip(*outputs, strict=True)
        ]


def _run(encoder: TextEncoder, caller: Caller, prompts: list[str]) -> list[Encoded]:
    """Encode prompts in one call, each different one once."""
    unique = list(dict.fromkeys(prompts))
    ids = [encoder.tokenizer.encode(prompt) for prompt in unique]
    outputs = caller(
        {"rows": len(unique)},
        embeddings=encoder.embeddings[np.stack(ids)].astype(encoder.engine.inputs["embeddings"].dtype, copy=False),
        pool_index=np.array([encoder.tokenizer.pool_index(row) for row in ids], np.int32),
    )
    rows = {prompt: (outputs["hidden"][_LAYER, i], outputs["pooled"][i]) for i, prompt in enumerate(unique)}
    return [rows[prompt] for prompt in prompts]


def _condition(encoded: Encoded, micro: MicroConditions) -> Conditioning:
    text, pooled = encoded
    return Conditioning(text=text, pooled=pooled, time_ids=micro.time_ids())
