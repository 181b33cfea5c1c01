"""Stage 3: the autoencoder's decoder again, now on latents as the base draws them.

What a UNet draws is not quite what an encoder makes: thin things come out with halos and spots. So pictures are
encoded, noise is added, the base takes it away in one guided step, and the decoder learns to give the picture back (it
is arXiv:2510.11690's noise-augmented decoding, with a UNet's errors for noise). The encoder, and with it what latents
mean, stays as it is.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from scripts.demo_model.checkpoint import token_ids
from scripts.demo_model.pictures import BUCKETS
from scripts.demo_model.training import Dice, Run, Stage
from scripts.demo_model.unet import cumulative_alphas, encode_text, mix, predict
from scripts.demo_model.vae import draw_sample, weighted_error

BATCH = 4
NOISIEST = 400
"""Up to this timestep, one step shows the scene that was there."""
GUIDANCE = 5.0


class DecoderStage(Stage):
    """Absolute and squared error of whole pictures of all sizes."""

    name = "decoder"
    rate = 1e-3

    def __init__(self, run: Run, steps: int, vae: Any, base: nn.ModuleDict, scaling_factor: float) -> None:
        self.steps, self._run, self._base = steps, run, base
        self._vae, self._scale = vae, scaling_factor
        parts = {name: copy.deepcopy(getattr(vae, name)) for name in ("post_quant_conv", "decoder")}
        self.models = nn.ModuleDict(parts).requires_grad_(True).to(run.device)
        self._alphas = cumulative_alphas()

    def loss(self, step: int, dice: Dice) -> Tensor:  # noqa: ARG002 - all steps are alike
        """Of a batch of freshly rendered pictures."""
        size = BUCKETS[dice.numpy.integers(len(BUCKETS))]
        drawn = [draw_sample(dice.numpy, size) for _ in range(self._run.part(BATCH))]
        pictures, weights = (torch.cat(each).to(self._run.device) for each in list(zip(*drawn, strict=True))[2:])
        tokens = token_ids([scene.caption for scene, *_ in drawn]).to(self._run.device)
        time_ids = torch.tensor([conditions.time_ids for _, conditions, *_ in drawn], dtype=torch.float32)
        with torch.no_grad():
            latents = self._redrawn(self._vae.encode(pictures).latent_dist.mean, tokens, time_ids, dice)
        return weighted_error(self.models["decoder"](self.models["post_quant_conv"](latents)), pictures, weights)

    def _redrawn(self, latents: Tensor, tokens: Tensor, time_ids: Tensor, dice: Dice) -> Tensor:
        """What the base sees in latents [N, 4, h, w] (not scaled) that noise was added to."""
        timesteps = dice.integers(0, NOISIEST, len(latents))
        alphas = self._alphas[timesteps]
        noisy = mix(latents * self._scale, dice.normal(latents), alphas)
        hidden, pooled = encode_text(self._base, tokens, ("text_encoder", "text_encoder_2"))
        text = torch.cat([hidden, torch.zeros_like(hidden)]), torch.cat([pooled, torch.zeros_like(pooled)])
        rows, ids = timesteps.repeat(2).to(noisy.device), time_ids.repeat(2, 1).to(noisy.device)
        wanted, unconditional = predict(self._base["unet"], noisy.repeat(2, 1, 1, 1), rows, text, ids).chunk(2)
        noise = unconditional + GUIDANCE * (wanted - unconditional)
        alphas = alphas[:, None, None, None].to(noisy.device)
        return (noisy - (1 - alphas).sqrt() * noise) / alphas.sqrt() / self._scale
