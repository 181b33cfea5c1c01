"""The two models of the matrix: a tiny base and a tiny refiner, made by seed, with SDXL's own scheduler config.

Their weights are random but for the UNet's last layer, which is fitted so that the network predicts noise as far as
it can. Of a network that predicts nothing, runs would end in the noise they began with, whatever a sampler does.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import tiny_sdxl

EDGE: Final = 64
"""Width and height of all pictures."""
SDXL: Final[dict[str, Any]] = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}
"""scheduler_config.json of stabilityai/stable-diffusion-xl-base-1.0."""
_PICTURES, _SPREAD, _RIDGE = 256, 0.5, 1e-4


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model as both sides load it."""

    checkpoint: Path
    bundle: Path


def prepare(root: Path) -> tuple[Model, Model]:
    """Base and refiner with their bundles for the CPU, made below `root` where they are not there."""
    sources = Path(__file__).read_bytes() + Path(tiny_sdxl.__file__).read_bytes()
    folder = root / hashlib.sha256(sources).hexdigest()[:16]
    return _prepare(folder / "base", refiner=False), _prepare(folder / "refiner", refiner=True)


def _prepare(folder: Path, *, refiner: bool) -> Model:
    checkpoint, bundle, done = folder / "model", folder / "bundle", folder / "made"
    if not done.exists():
        tiny_sdxl.make(checkpoint, refiner=refiner, seed=3 if refiner else 1)
        (checkpoint / "scheduler" / "scheduler_config.json").write_text(json.dumps(SDXL), encoding="utf-8")
        _fit_output(checkpoint / "unet")
        done.touch()
    command = [sys.executable, "-m", "sdxl_trt", "build", str(checkpoint), "--gpu", "cpu"]
    command += ["--size", f"{EDGE}x{EDGE}", "-o", str(bundle)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return Model(checkpoint=checkpoint, bundle=bundle)


def _fit_output(folder: Path) -> None:
    """Least squares for the last convolution: from what it is given to the noise in normal data, at all levels."""
    import diffusers
    import torch

    unet = diffusers.UNet2DConditionModel.from_pretrained(folder)
    random = torch.Generator().manual_seed(0)
    levels = diffusers.EulerDiscreteScheduler.from_config(SDXL).alphas_cumprod
    shape = (_PICTURES, 4, EDGE // 8, EDGE // 8)
    timesteps = torch.randint(0, len(levels), shape[:1], generator=random)
    noise, data = torch.randn(shape, generator=random), _SPREAD * torch.randn(shape, generator=random)
    share = levels[timesteps].reshape(-1, 1, 1, 1)
    with torch.no_grad():
        given = _last_input(unet, share.sqrt() * data + (1 - share).sqrt() * noise, timesteps, random)
        patches = torch.nn.functional.unfold(given, 3, padding=1).transpose(1, 2).flatten(0, 1).double()
        wanted = noise.permute(0, 2, 3, 1).reshape(-1, 4).double()
        moments = patches.T @ patches / len(patches) + _RIDGE * torch.eye(patches.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(moments, patches.T @ wanted / len(patches))
        unet.conv_out.weight.copy_(weights.T.reshape(unet.conv_out.weight.shape))
        unet.conv_out.bias.zero_()
    unet.save_pretrained(folder)


def _last_input(unet: Any, sample: Any, timesteps: Any, random: Any) -> Any:
    """What a UNet's last convolution is given, for text of pure noise: [N, channels, h, w]."""
    import torch

    seen: list[Any] = []
    hook = unet.conv_out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    config, pictures = unet.config, len(sample)
    ids = (config.projection_class_embeddings_input_dim - tiny_sdxl.POOLED) // config.addition_time_embed_dim
    added = {
        "text_embeds": torch.randn((pictures, tiny_sdxl.POOLED), generator=random),
        "time_ids": torch.full((pictures, ids), float(EDGE)),
    }
    text = torch.randn((pictures, 8, config.cross_attention_dim), generator=random)
    unet(sample, timesteps, text, added_cond_kwargs=added)
    hook.remove()
    return seen[0]
