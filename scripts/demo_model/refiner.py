"""Stage 7: the refiner, an expert for the last fifth of the noise that is told an aesthetic score.

See arXiv:2307.01952, section 2.5. Here the score stands for sharpness. Text comes from the second encoder
alone, which is the base's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scripts.demo_model.checkpoint import config, new_unet, token_ids
from scripts.demo_model.latents import Latents
from scripts.demo_model.training import Dice, Run, Stage
from scripts.demo_model.unet import BATCH, DROPPED, cumulative_alphas, encode_text, mix, predict

NOISIEST = 300
"""Trained below this timestep; used below 200 (`denoising_start=0.8`)."""
TIME_IDS = 5


def refiner_config() -> dict[str, Any]:
    """What differs from the base's UNet."""
    base, text = config("unet"), config("text_encoder_2")
    return {
        "cross_attention_dim": text["hidden_size"],
        "projection_class_embeddings_input_dim": text["projection_dim"] + TIME_IDS * base["addition_time_embed_dim"],
    }


class RefinerStage(Stage):
    """Predicts small noise; dropped captions are empty ones, as `force_zeros_for_empty_prompt` is false."""

    name = "refiner"
    rate = 5e-4

    def __init__(self, run: Run, steps: int, latents: Latents, base: nn.ModuleDict, shards: int) -> None:
        self._shards = shards
        self.steps, self._latents, self._count = steps, latents, run.part(BATCH)
        unet = new_unet(**refiner_config())
        unet.load_state_dict(
            {name: _fit(name, base["unet"].state_dict()[name], value) for name, value in unet.state_dict().items()}
        )
        self.models = nn.ModuleDict({"unet": unet}).to(run.device)
        self._base, self._alphas = base, cumulative_alphas()
        self._empty = token_ids([""]).to(run.device)

    def loss(self, step: int, dice: Dice) -> Tensor:  # noqa: ARG002 - all steps are alike
        """Squared error of the noise."""
        batch = self._latents.batch(self._count, dice, shards=self._shards)
        dropped = dice.chance(DROPPED, self._count).to(batch.latents.device)
        tokens = torch.where(dropped[:, None], self._empty, batch.tokens)
        with torch.no_grad():
            text = encode_text(self._base, tokens, ("text_encoder_2",))
        timesteps = dice.integers(0, NOISIEST, self._count)
        noise = dice.normal(batch.latents)
        noisy = mix(batch.latents, noise, self._alphas[timesteps])
        timesteps = timesteps.to(noisy.device)
        predicted = predict(self.models["unet"], noisy, timesteps, text, batch.refiner_time_ids)
        return (predicted - noise).square().mean()


def _fit(name: str, base: Tensor, own: Tensor) -> Tensor:
    """The base's weight, without the columns that belong to the first text encoder or to the sixth time id."""
    if base.shape == own.shape:
        return base
    return base[:, : own.shape[1]] if name.startswith("add_embedding") else base[:, -own.shape[1] :]
