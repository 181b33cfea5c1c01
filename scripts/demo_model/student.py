"""Stage 4: the student, which draws in one to four steps without guidance what the base draws in many with it.

The base's guided probability-flow solutions from given noise are kept, and the student regresses them from that noise,
and from what its own first guess becomes when noise is added again (after arXiv:2210.03142 and arXiv:2311.17042). It
predicts v: an error of a predicted ε would count 15 times at the first timestep.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor, nn

from scripts.demo_model.checkpoint import config, token_ids
from scripts.demo_model.latents import FIRST_SHARDS, bucket, kept
from scripts.demo_model.pictures import plain
from scripts.demo_model.training import Dice, Run, Stage
from scripts.demo_model.unet import (
    BATCH,
    TEXT_ENCODERS,
    TIMESTEPS,
    cumulative_alphas,
    encode_text,
    mix,
    predict,
    seen_tokens,
)
from scripts.demo_model.vae import draw_scene

CHUNK = 32
MOST_SHARDS = 4 * FIRST_SHARDS
STEPS_PER_SHARD = 75
TEACHER_STEPS = 12
GUIDANCE = 2.0
"""Twelve steps are enough for it (99 of 100 right); of 5, half of what they draw is wrong."""
LATER = (749, 666, 499, 332, 249)
"""Where two to four trailing steps go on after the first, which is at 999."""
HUBER = 0.1
"""Errors above it count linearly: edges stay sharp."""

SCHEDULER = {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}
"""What differs from the base's scheduler."""


class Solutions:
    """The base's guided solutions: noise, latents, tokens and time ids in shards of one picture size, kept."""

    def __init__(self, folder: Path, base: nn.ModuleDict, run: Run) -> None:
        self._folder, self._base, self._run = folder, base, run
        self._loaded: dict[int, dict[str, Tensor]] = {}

    def batch(self, count: int, dice: Dice, *, shards: int) -> dict[str, Tensor]:
        """Random solutions for one picture size, out of so many shards."""
        index = int(dice.integers(0, shards, 1))
        if index not in self._loaded:
            self._loaded[index] = kept(self._folder / f"{index:03}.safetensors", lambda: self._solve(index))
        rows = dice.integers(0, len(self._loaded[index]["noise"]), count)
        return {name: value[rows].to(self._run.device) for name, value in self._loaded[index].items()}

    @torch.no_grad()
    def _solve(self, index: int) -> dict[str, Tensor]:
        dice = Dice(self._run.seed, "solutions", index)
        (width, height), count = bucket(index), self._run.shard // 2
        tokens = token_ids([draw_scene(dice.numpy).caption for _ in range(count)])
        noise = dice.normal(torch.empty(count, 4, height // 8, width // 8))
        time_ids = torch.tensor([plain((width, height)).time_ids] * count, dtype=torch.float32)
        device = self._run.device
        solved = [
            solve(self._base, noise[rows].to(device), tokens[:, rows].to(device), time_ids[rows].to(device)).cpu()
            for rows in (slice(start, start + CHUNK) for start in range(0, count, CHUNK))
        ]
        return {
            "noise": noise,
            "latents": torch.cat(solved),
            "tokens": tokens.transpose(0, 1).contiguous(),
            "time_ids": time_ids,
        }


def solve(base: nn.ModuleDict, noise: Tensor, tokens: Tensor, time_ids: Tensor) -> Tensor:
    """Latents that the base draws from noise [N, 4, h, w] with guidance (DPM-Solver++, arXiv:2211.01095)."""
    scheduler = DPMSolverMultistepScheduler.from_config(config("scheduler"), timestep_spacing="trailing")
    scheduler.set_timesteps(TEACHER_STEPS, device=noise.device)
    hidden, pooled = encode_text(base, tokens, TEXT_ENCODERS)
    text = torch.cat([hidden, torch.zeros_like(hidden)]), torch.cat([pooled, torch.zeros_like(pooled)])
    latents = noise
    for timestep in scheduler.timesteps:
        rows = timestep.expand(2 * len(latents))
        output = predict(base["unet"], latents.repeat(2, 1, 1, 1), rows, text, time_ids.repeat(2, 1))
        wanted, unconditional = output.chunk(2)
        guided = unconditional + GUIDANCE * (wanted - unconditional)
        latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
    return latents


class StudentStage(Stage):
    """Half of the time from pure noise; else from its own first guess with noise, the same or fresh, added again."""

    name = "student"
    rate = 1e-3

    def __init__(self, run: Run, steps: int, solutions: Solutions, base: nn.ModuleDict) -> None:
        self.steps, self._solutions, self._count = steps, solutions, run.part(BATCH)
        self.models = nn.ModuleDict({"unet": copy.deepcopy(base["unet"]).requires_grad_(True)}).to(run.device)
        self._base, self._alphas = base, cumulative_alphas()

    def loss(self, step: int, dice: Dice) -> Tensor:
        """Huber's loss of the latents."""
        batch = self._solutions.batch(
            self._count, dice, shards=min(MOST_SHARDS, FIRST_SHARDS + step // STEPS_PER_SHARD)
        )
        tokens = seen_tokens(batch["tokens"].transpose(0, 1), step / self.steps)
        with torch.no_grad():
            text = encode_text(self._base, tokens, TEXT_ENCODERS)
        noise, last = batch["noise"], TIMESTEPS - 1
        noisy = mix(torch.zeros_like(noise), noise, self._alphas[[last]])
        if bool(dice.chance(0.5, 1)):
            with torch.no_grad():
                guess = self._draw(noisy, last, text, batch["time_ids"])
            last = LATER[int(dice.integers(0, len(LATER), 1))]
            fresh = dice.chance(0.5, self._count).to(noise.device)[:, None, None, None]
            noisy = mix(guess, torch.where(fresh, dice.normal(noise), noise), self._alphas[[last]])
        drawn = self._draw(noisy, last, text, batch["time_ids"])
        return nn.functional.huber_loss(drawn, batch["latents"], delta=HUBER) / HUBER

    def _draw(self, noisy: Tensor, timestep: int, text: tuple[Tensor, Tensor], time_ids: Tensor) -> Tensor:
        """The latents that the student sees in noisy ones."""
        rows = torch.full((len(noisy),), timestep, device=noisy.device)
        velocity = predict(self.models["unet"], noisy, rows, text, time_ids)
        return mix(noisy, -velocity, self._alphas[[timestep]])
