"""A stage of training that can be killed at any moment and goes on from where it was last saved.

All randomness of a step comes from (seed, stage, step, rank), so a resumed run takes the steps that an unbroken one
takes. Workers are processes of one thread each that take parts of a batch and average their gradients: on a machine
that others use, threads would wait for one another at every operation.
"""

from __future__ import annotations

import math
import time
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, distributed, nn

from sdxl_trt.files import atomic_write

AVERAGING = 0.999
"""Weights are averaged over the last thousand steps or so."""
WARM_UP = 200
LOWEST_RATE = 0.02
"""The cosine schedule of learning rates is clipped here, in parts of the highest."""
LARGEST_GRADIENT = 1.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """What all stages share."""

    folder: Path
    """States, latents and results."""
    device: str
    seed: int
    save_seconds: float
    """States are saved so often."""
    shard: int
    """Pictures that are drawn and encoded at a time."""
    rank: int = 0
    """Which of the workers this process is; the first one saves and tells."""
    workers: int = 1

    def part(self, batch: int) -> int:
        """This worker's part of a batch."""
        return batch // self.workers


class Dice:
    """All randomness of one step: on the CPU, so that devices see the same."""

    def __init__(self, *key: int | str) -> None:
        number = zlib.crc32(repr(key).encode())
        self.torch = torch.Generator().manual_seed(number)
        self.numpy = np.random.default_rng(number)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal values of another tensor's shape, on its device."""
        return torch.randn(like.shape, generator=self.torch).to(like.device)

    def integers(self, low: int, high: int, count: int) -> Tensor:
        """Integers from `low` up to but not including `high`."""
        return torch.randint(low, high, (count,), generator=self.torch)

    def timesteps(self, weights: Tensor, count: int) -> Tensor:
        """Timesteps, drawn in proportion to their weights."""
        return torch.multinomial(weights, count, replacement=True, generator=self.torch)

    def chance(self, part: float, count: int) -> Tensor:
        """Booleans, true for so large a part."""
        return torch.rand(count, generator=self.torch) < part


class Stage(ABC):
    """One stage: its models, and its loss at a step."""

    name: str
    steps: int
    rate: float
    """The highest learning rate."""
    models: nn.ModuleDict

    @abstractmethod
    def loss(self, step: int, dice: Dice) -> Tensor:
        """The loss of one freshly drawn batch."""


def train(stage: Stage, run: Run) -> nn.ModuleDict:
    """Train from the last saved state to the stage's last step.

    Returns: the stage's models with their weights' running averages, in evaluation mode.
    """
    path = run.folder / f"{stage.name}.pt"
    optimizer = torch.optim.AdamW(stage.models.parameters(), lr=stage.rate, betas=(0.9, 0.99), weight_decay=1e-3)
    state = _resume(path, stage, optimizer, run.device)
    pace, saved = Pace(stage, state["step"]), time.monotonic()
    stage.models.train()
    while (step := state["step"]) < stage.steps:
        loss = _step(stage, optimizer, Dice(run.seed, stage.name, step, run.rank), step)
        _average(state["average"], stage.models, step)
        state["step"] = step + 1
        if run.rank:
            continue
        pace.tell(step + 1, loss)
        if time.monotonic() - saved > run.save_seconds or step + 1 == stage.steps:
            _save(path, state | {"models": stage.models.state_dict(), "optimizer": optimizer.state_dict()})
            saved = time.monotonic()
    stage.models.load_state_dict(state["average"])
    return stage.models.eval().requires_grad_(False)


def _step(stage: Stage, optimizer: torch.optim.Optimizer, dice: Dice, step: int) -> float:
    for group in optimizer.param_groups:
        group["lr"] = stage.rate * _rate(step, stage.steps)
    loss = stage.loss(step, dice)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    _share_gradients(stage.models)
    nn.utils.clip_grad_norm_(stage.models.parameters(), LARGEST_GRADIENT)
    optimizer.step()
    return float(loss.detach())


def _share_gradients(models: nn.ModuleDict) -> None:
    """Replace gradients by their mean over all workers."""
    if not distributed.is_initialized():
        return
    gradients = [each.grad for each in models.parameters() if each.grad is not None]
    flat = torch.cat([each.flatten() for each in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def _rate(step: int, steps: int) -> float:
    """The learning rate in parts of the highest: a linear rise, then a clipped cosine."""
    return min(1.0, (step + 1) / WARM_UP) * max(LOWEST_RATE, (1 + math.cos(math.pi * step / steps)) / 2)


def _average(average: dict[str, Tensor], models: nn.ModuleDict, step: int) -> None:
    """Move the running average towards the weights; early on it forgets faster."""
    weight = 1 - min(AVERAGING, (1 + step) / (10 + step))
    with torch.no_grad():
        for name, value in models.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, weight)


def _resume(path: Path, stage: Stage, optimizer: torch.optim.Optimizer, device: str) -> dict[str, Any]:
    """The saved state, loaded into models and optimizer; or a fresh one."""
    if not path.exists():
        return {"step": 0, "average": {name: value.clone() for name, value in stage.models.state_dict().items()}}
    saved = torch.load(path, map_location=device, weights_only=True)
    stage.models.load_state_dict(saved["models"])
    optimizer.load_state_dict(saved["optimizer"])
    return {"step": saved["step"], "average": saved["average"]}


def _save(path: Path, state: dict[str, Any]) -> None:
    with atomic_write(path) as file:
        torch.save(state, file)


class Pace:
    """Tells progress twice a minute."""

    SECONDS = 30.0

    def __init__(self, stage: Stage, step: int) -> None:
        self._stage, self._loss = stage, math.nan
        self._told, self._told_step = time.monotonic(), step

    def tell(self, step: int, loss: float) -> None:
        """Note one step's loss; print when it is time."""
        self._loss = loss if math.isnan(self._loss) else self._loss + 0.02 * (loss - self._loss)
        now = time.monotonic()
        if now - self._told < self.SECONDS and step != self._stage.steps:
            return
        seconds = (now - self._told) / max(1, step - self._told_step)
        left = seconds * (self._stage.steps - step) / 60
        clock = time.strftime("%H:%M:%S")
        click.echo(
            f"{clock} {self._stage.name} {step}/{self._stage.steps} loss {self._loss:.4f}, "
            f"{seconds:.2f} s a step, {left:.0f} min left",
            err=True,
        )
        self._told, self._told_step = now, step
