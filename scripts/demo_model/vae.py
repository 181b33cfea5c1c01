"""Stage 1: the autoencoder, on crops first, then on whole pictures of all sizes (arXiv:2112.10752, section 3.1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scripts.demo_model.captions import BACKGROUNDS, RELATIONS, SIZES, Scene, scenes
from scripts.demo_model.checkpoint import new_vae
from scripts.demo_model.pictures import BUCKETS, draw_conditions, render
from scripts.demo_model.training import Dice, Run, Stage

BATCH = 16
CROP = 64
WHOLE = 0.7
"""From this part of the steps on, pictures are whole."""
KL_WEIGHT = 2e-5
FIRST_LOG_VARIANCE = -5.0
THING_WEIGHT = 1.8
"""So much, over its distance to the background's colour (0 to 1), is added to the weight 1 of a thing's pixel: there is
much more background, and faint things and edges count as much as others."""
MOST_WEIGHT = 12.0
SEEN = 12
"""A pixel belongs to a thing from this 8-bit distance to the background's colour on."""
KINDS = (*SIZES, *RELATIONS, *RELATIONS)
"""Two things are drawn twice as often as one."""


class VaeStage(Stage):
    """Absolute and squared error, and a little of the divergence from a normal distribution."""

    name = "vae"
    rate = 2e-3

    def __init__(self, run: Run, steps: int) -> None:
        torch.manual_seed(run.seed)
        self.steps, self._run = steps, run
        vae = new_vae()
        with torch.no_grad():  # latents start with little noise, or nothing is learnt for long
            vae.quant_conv.bias[4:] = FIRST_LOG_VARIANCE
            vae.quant_conv.weight[4:] *= 0.1
        self.models = nn.ModuleDict({"vae": vae}).to(run.device)

    def loss(self, step: int, dice: Dice) -> Tensor:
        """Of a batch of freshly rendered pictures."""
        whole = step >= WHOLE * self.steps
        count = self._run.part(BATCH // 4 if whole else BATCH)
        pictures, weights = (each.to(self._run.device) for each in draw_pictures(dice.numpy, count, whole=whole))
        vae: Any = self.models["vae"]
        posterior = vae.encode(pictures).latent_dist
        latents = posterior.mean + posterior.std * dice.normal(posterior.mean)
        divergence = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        loss: Tensor = weighted_error(vae.decode(latents).sample, pictures, weights) + KL_WEIGHT * divergence
        return loss


def weighted_error(drawn: Tensor, pictures: Tensor, weights: Tensor) -> Tensor:
    """Absolute and half the squared error, with a weight for each pixel [N, 1, height, width]."""
    error = (drawn - pictures).abs()
    return (weights * (error + 0.5 * error.square())).mean()


def draw_pictures(
    random: np.random.Generator, count: int, *, whole: bool, quality: str = "any"
) -> tuple[Tensor, Tensor]:
    """Pictures [count, 3, height, width] in -1…1, and weights [count, 1, height, width] of their pixels.

    They are whole ones of one bucket, or crops that show something; `quality` is of `draw_conditions`.
    """
    size = BUCKETS[random.integers(len(BUCKETS))] if whole else (128, 128)
    pictures, distances = [], []
    for _ in range(count):
        scene = draw_scene(random)
        picture = render(scene, draw_conditions(random, size, quality), random)
        distance = np.abs(picture.astype(np.int16) - np.array(BACKGROUNDS[scene.background])).max(-1)
        window = (slice(None), slice(None)) if whole else _window(distance > SEEN, random)
        pictures.append(picture[window])
        distances.append(distance[window])
    far = torch.from_numpy(np.stack(distances))[:, None].float()
    weights = (THING_WEIGHT * 255 / far.clamp(min=1)).clamp(max=MOST_WEIGHT) * (far > SEEN)
    return as_tensor(np.stack(pictures)), 1 + weights


def _window(mask: NDArray[np.bool_], random: np.random.Generator) -> tuple[slice, slice]:
    """A crop around one of the pixels of the things."""
    pixels = np.argwhere(mask)
    top, left = np.clip(pixels[random.integers(len(pixels))] - random.integers(0, CROP, 2), 0, 128 - CROP)
    return slice(top, top + CROP), slice(left, left + CROP)


def draw_scene(random: np.random.Generator) -> Scene:
    """A random scene that training may see."""
    seen = scenes(str(random.choice(KINDS)), held_out=False)
    return seen[random.integers(len(seen))]


def as_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """Pictures [count, height, width, 3] in 0…255 as [count, 3, height, width] in -1…1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
