"""Stage 3: both text encoders and the UNet, jointly (arXiv:2006.11239; micro-conditioning as arXiv:2307.01952)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scripts.demo_model.checkpoint import new_text_encoders, new_unet
from scripts.demo_model.latents import FIRST_SHARDS, Latents
from scripts.demo_model.training import Dice, Run, Stage

BATCH = 32
DROPPED = 0.1
"""So many captions are dropped, for classifier-free guidance (arXiv:2207.12598)."""
SNR_CLIP = 5.0
"""Minimum-SNR weighting, arXiv:2303.09556."""
TIMESTEPS = 1000
FEW_TOKENS = 24
"""Longer than any caption: what follows is padding, which is left out until `ALL_TOKENS` of the steps are done."""
ALL_TOKENS = 0.85
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
MOST_SHARDS = 10 * FIRST_SHARDS
STEPS_PER_SHARD = 100
"""A new shard joins the training set after so many steps."""


def cumulative_alphas() -> Tensor:
    """ᾱ by timestep [1000]: SDXL's scaled linear betas."""
    return torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS) ** 2, dim=0)


def encode_text(models: nn.ModuleDict, tokens: Tensor, parts: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """The last but one hidden states of the named encoders [N, 77, D], and the second encoder's pooled output [N, P].

    Args:
        models: with the encoders.
        tokens: ids of both tokenizers [2, N, 77].
        parts: 'text_encoder', 'text_encoder_2' or both, in this order.
    """
    rows = {"text_encoder": 0, "text_encoder_2": 1}
    outputs = [models[part](tokens[rows[part]], output_hidden_states=True) for part in parts]
    return torch.cat([each.hidden_states[-2] for each in outputs], dim=-1), outputs[-1].text_embeds


def predict(unet: Any, noisy: Tensor, timesteps: Tensor, text: tuple[Tensor, Tensor], time_ids: Tensor) -> Tensor:
    """The UNet's output, of the latents' shape."""
    conditions = {"text_embeds": text[1], "time_ids": time_ids}
    output: Tensor = unet(noisy, timesteps, text[0], added_cond_kwargs=conditions, return_dict=False)[0]
    return output


class UnetStage(Stage):
    """Predicts noise at all timesteps; captions are dropped for zeros, as `force_zeros_for_empty_prompt` does."""

    name = "unet"
    rate = 1e-3
    soft = 0.0
    """A part of the pictures that is from small originals, beside those among the others."""

    def __init__(self, run: Run, steps: int, latents: Latents) -> None:
        torch.manual_seed(run.seed)
        self.steps, self._latents, self._count = steps, latents, run.part(BATCH)
        self.models = nn.ModuleDict({**new_text_encoders(), "unet": new_unet()}).to(run.device)
        self._alphas, self._weights = cumulative_alphas(), timestep_weights()

    def loss(self, step: int, dice: Dice) -> Tensor:
        """Squared error of the noise, at timesteps drawn by `timestep_weights`."""
        batch = self._latents.batch(self._count, dice, shards=shards_at(step), soft=self.soft)
        keep = (~dice.chance(DROPPED, self._count)).to(batch.latents.device)
        tokens = seen_tokens(batch.tokens, step / self.steps)
        hidden, pooled = self._encode(tokens)
        text = hidden * keep[:, None, None], pooled * keep[:, None]
        timesteps = dice.timesteps(self._weights, self._count)
        noise = dice.normal(batch.latents)
        noisy = mix(batch.latents, noise, self._alphas[timesteps])
        predicted = predict(self.models["unet"], noisy, timesteps.to(noisy.device), text, batch.time_ids)
        return (predicted - noise).square().mean()

    def _encode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return encode_text(self.models, tokens, TEXT_ENCODERS)


def shards_at(step: int) -> int:
    """Of the training set, once so many steps are done."""
    return min(MOST_SHARDS, FIRST_SHARDS + step // STEPS_PER_SHARD)


def seen_tokens(tokens: Tensor, done: float) -> Tensor:
    """Ids [2, N, 77] without their padding, until most of the steps are done (0 to 1)."""
    return tokens if done >= ALL_TOKENS else tokens[..., :FEW_TOKENS]


def mix(latents: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """Latents as noisy as ᾱ [N] says."""
    alphas = alphas[:, None, None, None].to(latents.device)
    return alphas.sqrt() * latents + (1 - alphas).sqrt() * noise


def timestep_weights() -> Tensor:
    """How often a timestep is drawn [1000]: in proportion to minimum-SNR weights, and more often where noise is high.

    Only there do colours depend on the caption: from less noise they can be seen.
    """
    snr = 1 / (1 / cumulative_alphas() - 1)
    return snr.clamp(max=SNR_CLIP) / snr * (0.4 + 2 * torch.linspace(0, 1, TIMESTEPS) ** 3)
