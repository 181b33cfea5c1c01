"""Stages 5 and 6: small originals come out soft (arXiv:2307.01952, section 2.2).

After the first stages they do not: the autoencoder's latents hardly tell a soft picture from a sharp one, and its
decoder draws all edges alike. Here the whole autoencoder goes on with many soft pictures and with an error of the
energy of gradients, in which soft and sharp edges differ. Latents of the sharpest pictures are held where they were, so
that the UNet need not start again: it goes on with the new latents.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from scripts.demo_model.latents import Latents
from scripts.demo_model.training import Dice, Run, Stage
from scripts.demo_model.unet import TEXT_ENCODERS, UnetStage, encode_text
from scripts.demo_model.vae import draw_pictures, weighted_error

BATCH = 4
ENERGY_WEIGHT = 0.05
FLAT = 1e-5
"""Energy that nobody sees."""
HOLD_WEIGHT = 0.1
"""Of the squared distance to the old latents, in their own variances."""
QUALITIES = {"sharp": 0.3, "soft": 0.5, "any": 0.2}
"""What the pictures of a step are, and in which part of the steps."""


class SoftVaeStage(Stage):
    """Errors of pictures and of their gradients; latents of sharp pictures stay."""

    name = "soft-vae"
    rate = 1e-3

    def __init__(self, run: Run, steps: int, vae: Any) -> None:
        self.steps, self._run, self._old = steps, run, vae
        self.models = nn.ModuleDict({"vae": copy.deepcopy(vae)}).requires_grad_(True).to(run.device)

    def loss(self, step: int, dice: Dice) -> Tensor:  # noqa: ARG002 - all steps are alike
        """Of a batch of freshly rendered pictures of one quality."""
        quality = str(dice.numpy.choice(list(QUALITIES), p=list(QUALITIES.values())))
        drawn = draw_pictures(dice.numpy, self._run.part(BATCH), whole=True, quality=quality)
        pictures, weights = (each.to(self._run.device) for each in drawn)
        vae: Any = self.models["vae"]
        latents = vae.encode(pictures).latent_dist.mean
        decoded = vae.decode(latents).sample
        loss: Tensor = weighted_error(decoded, pictures, weights) + ENERGY_WEIGHT * energy_error(decoded, pictures)
        if quality != "sharp":
            return loss
        with torch.no_grad():
            old = self._old.encode(pictures).latent_dist.mean
        held: Tensor = (latents - old).square().mean() / old.var()
        return loss + HOLD_WEIGHT * held


def energy_error(drawn: Tensor, pictures: Tensor) -> Tensor:
    """How far the energies of pictures' gradients are apart: the mean absolute difference of their logarithms.

    The energy of an edge is its height squared over its width, wherever exactly it lies: so this tells soft from sharp
    where errors of pixels tell little but where an edge lies.
    """
    return (_energy(drawn).log() - _energy(pictures).log()).abs().mean()


def _energy(pictures: Tensor) -> Tensor:
    """Mean squared differences between neighbouring pixels, down and across, of each picture [N]."""
    down, across = (pictures.diff(dim=axis).square().mean(dim=(1, 2, 3)) for axis in (-2, -1))
    return down + across + FLAT


class SoftUnetStage(UnetStage):
    """The UNet goes on, on the new latents; the text encoders know all words already, and stay."""

    name = "soft-unet"
    rate = 3e-4
    soft = 0.4

    def __init__(self, run: Run, steps: int, latents: Latents, base: nn.ModuleDict) -> None:
        super().__init__(run, steps, latents)
        self.models = nn.ModuleDict({"unet": copy.deepcopy(base["unet"])}).requires_grad_(True).to(run.device)
        self._base = base

    def _encode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return encode_text(self._base, tokens, TEXT_ENCODERS)
