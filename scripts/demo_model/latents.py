"""The training set: captioned latents in shards, each of one picture size, encoded when first needed and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, distributed

from scripts.demo_model.checkpoint import token_ids
from scripts.demo_model.pictures import BUCKETS, draw_conditions, render
from scripts.demo_model.training import Dice, Run
from scripts.demo_model.vae import as_tensor, draw_scene
from sdxl_trt.files import atomic_write

CHUNK = 32
"""Pictures that are encoded at once."""
SMALL = 0.5
"""Originals that are lower than this part of the picture, what was cropped of it counted."""
FIRST_SHARDS = len(BUCKETS) + 1


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some pictures of one size."""

    latents: Tensor
    """Scaled to a standard deviation of 1, [N, 4, height, width]."""
    tokens: Tensor
    """Ids of both tokenizers [2, N, 77]."""
    time_ids: Tensor
    """[N, 6]."""
    refiner_time_ids: Tensor
    """[N, 5]."""


class Latents:
    """Shards under a folder; more of them the longer a stage has trained, so that training need not wait for all."""

    def __init__(self, folder: Path, vae: Any, run: Run, scaling_factor: float | None = None) -> None:
        self._folder, self._vae, self._run = folder, vae, run
        self._loaded: dict[int, dict[str, Tensor]] = {}
        for index in range(run.rank, FIRST_SHARDS, run.workers):
            self._shard(index)
        if distributed.is_initialized():
            distributed.barrier()

        self._scaling_factor = scaling_factor

    @cached_property
    def scaling_factor(self) -> float:
        """What the autoencoder's latents are multiplied by; if not given, to get a standard deviation of 1."""
        if self._scaling_factor is not None:
            return self._scaling_factor
        return 1 / float(torch.cat([self._shard(i)["latents"].flatten() for i in range(FIRST_SHARDS)]).float().std())

    def batch(self, count: int, dice: Dice, *, shards: int, soft: float = 0.0) -> Batch:
        """Random pictures of one size, out of so many shards; so large a part of them from small originals."""
        shard = self._shard(int(dice.integers(0, shards, 1)))
        rows = dice.integers(0, len(shard["latents"]), count)
        ids = shard["time_ids"]
        (small,) = torch.where(ids[:, 0] < SMALL * (ids[:, 2] + ids[:, 4]))
        if soft and len(small):
            rows = torch.where(dice.chance(soft, count), small[dice.integers(0, len(small), count)], rows)
        picked = {name: (value[:, rows] if name == "tokens" else value[rows]) for name, value in shard.items()}
        picked = {name: value.to(self._run.device) for name, value in picked.items()}
        return Batch(
            latents=picked["latents"].float() * self.scaling_factor,
            tokens=picked["tokens"].long(),
            time_ids=picked["time_ids"],
            refiner_time_ids=picked["refiner_time_ids"],
        )

    def _shard(self, index: int) -> dict[str, Tensor]:
        if index not in self._loaded:
            self._loaded[index] = kept(self._folder / f"{index:03}.safetensors", lambda: self._encode(index))
        return self._loaded[index]

    def _encode(self, index: int) -> dict[str, Tensor]:
        """Draw and encode one shard; its latents are not scaled."""
        random = Dice(self._run.seed, "latents", index).numpy
        size = bucket(index)
        drawn = [draw_scene(random) for _ in range(self._run.shard)]
        conditions = [draw_conditions(random, size) for _ in drawn]
        latents = []
        for start in range(0, self._run.shard, CHUNK):
            chunk = zip(drawn[start : start + CHUNK], conditions[start : start + CHUNK], strict=True)
            pictures = as_tensor(np.stack([render(*pair, random) for pair in chunk]))
            with torch.no_grad():
                latents.append(self._vae.encode(pictures.to(self._run.device)).latent_dist.mean.half().cpu())
        return {
            "latents": torch.cat(latents).contiguous(),
            "tokens": token_ids([scene.caption for scene in drawn]).short().contiguous(),
            "time_ids": torch.tensor([each.time_ids for each in conditions], dtype=torch.float32),
            "refiner_time_ids": torch.tensor([each.refiner_time_ids for each in conditions], dtype=torch.float32),
        }


def kept(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors from a file, which is made first if it is not there."""
    if not path.exists():
        with atomic_write(path) as file:
            file.write(save(make()))
    return load_file(path)


def bucket(index: int) -> tuple[int, int]:
    """The picture size (width, height) of a shard: of each `FIRST_SHARDS` in a row, two have the first bucket."""
    return BUCKETS[max(0, index % FIRST_SHARDS - 1)]
