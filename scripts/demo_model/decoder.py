"""Stage 2: the autoencoder's decoder alone, on whole pictures: the encoder, and what latents mean, stay as they are.

Stage 1 weighs the things and not what is beside them, so rings' holes and the points of stars come out soft, with
halos. Here what surrounds a thing counts as much as it does. Latents get a little noise: a UNet's are not exact either.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from scripts.demo_model.training import Dice, Run, Stage
from scripts.demo_model.vae import draw_pictures, weighted_error

BATCH = 4
NOISE = 0.1
"""At most, in parts of the latents' standard deviation."""
AROUND = 9
"""Pixels of the square around a thing's pixel that count as much."""


class DecoderStage(Stage):
    """Absolute and squared error of whole pictures of all sizes."""

    name = "decoder"
    rate = 1e-3

    def __init__(self, run: Run, steps: int, vae: Any) -> None:
        self.steps, self._run, self._vae = steps, run, vae
        parts = {name: copy.deepcopy(getattr(vae, name)) for name in ("post_quant_conv", "decoder")}
        self.models = nn.ModuleDict(parts).requires_grad_(True).to(run.device)

    def loss(self, step: int, dice: Dice) -> Tensor:  # noqa: ARG002 - all steps are alike
        """Of a batch of freshly rendered pictures."""
        count = self._run.part(BATCH)
        pictures, weights = (each.to(self._run.device) for each in draw_pictures(dice.numpy, count, whole=True))
        with torch.no_grad():
            latents = self._vae.encode(pictures).latent_dist.mean
        amount = NOISE * latents.std() * torch.from_numpy(dice.numpy.random((count, 1, 1, 1), "float32"))
        noisy = latents + amount.to(latents.device) * dice.normal(latents)
        around = nn.functional.max_pool2d(weights, AROUND, stride=1, padding=AROUND // 2)
        return weighted_error(self.models["decoder"](self.models["post_quant_conv"](noisy)), pictures, around)

    def finish(self) -> Any:
        """The autoencoder with the decoder that was trained."""
        for name, part in self.models.items():
            setattr(self._vae, name, part)
        return self._vae
