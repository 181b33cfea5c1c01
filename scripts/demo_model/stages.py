"""All stages, one after another, and the checkpoints that come out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from scripts.demo_model.checkpoint import load, save, share
from scripts.demo_model.decoder import DecoderStage
from scripts.demo_model.latents import Latents
from scripts.demo_model.refiner import RefinerStage, refiner_config
from scripts.demo_model.softness import SoftUnetStage, SoftVaeStage
from scripts.demo_model.student import SCHEDULER, Solutions, StudentStage
from scripts.demo_model.training import Run, train
from scripts.demo_model.unet import UnetStage, shards_at
from scripts.demo_model.vae import VaeStage
from sdxl_trt.paths import DEMO_CHECKPOINT

STEPS = {
    "vae": 4500,
    "decoder": 2000,
    "unet": 19000,
    "student": 4000,
    "soft-vae": 3000,
    "soft-unet": 4500,
    "refiner": 1000,
}
"""Steps of each stage, in their order."""
BASE = DEMO_CHECKPOINT.name
STUDENT = BASE + "-turbo"
REFINER_INDEX = {
    "_class_name": "StableDiffusionXLImg2ImgPipeline",
    "force_zeros_for_empty_prompt": False,
    "requires_aesthetics_score": True,
    "text_encoder": [None, None],
    "tokenizer": [None, None],
}


def work(run: Run, steps: dict[str, int], address: str, start: Path | None) -> None:
    """Train all stages as one of the workers, who meet at `address`.

    Args:
        run: what they share.
        steps: of each stage.
        address: where the workers meet.
        start: folder of base and student, which stand for what the stages before 'soft-vae' give.
    """
    if run.workers > 1:
        torch.set_num_threads(1)
        distributed.init_process_group("gloo", init_method=address, rank=run.rank, world_size=run.workers)
    torch.set_flush_denormal(True)
    models = _loaded(start, run.device) if start else _first(run, steps)
    vae = train(SoftVaeStage(run, steps["soft-vae"], models.vae), run)["vae"]
    latents = Latents(run.folder / "soft-latents", vae, run, models.scaling_factor)
    models.base["unet"] = train(SoftUnetStage(run, steps["soft-unet"], latents, models.base), run)["unet"]
    scaled = {"vae": {"scaling_factor": models.scaling_factor}}
    _result(run, BASE, {"vae": vae, **models.base}, scaled)
    _result(run, STUDENT, {"vae": vae, **models.base, "unet": models.student}, scaled | {"scheduler": SCHEDULER})
    shards = shards_at(steps["soft-unet"])  # those that are there
    refiner = train(RefinerStage(run, steps["refiner"], latents, models.base, shards), run)
    parts = {"vae": vae, "text_encoder_2": models.base["text_encoder_2"], **refiner}
    _result(run, BASE + "-refiner", parts, scaled | {"unet": refiner_config(), "": REFINER_INDEX})


@dataclass(frozen=True, kw_only=True)
class _Models:
    """What there is before small originals come out soft."""

    vae: Any
    base: nn.ModuleDict
    """UNet and text encoders."""
    student: Any
    """A UNet."""
    scaling_factor: float


def _first(run: Run, steps: dict[str, int]) -> _Models:
    """The first stages."""
    vae = train(VaeStage(run, steps["vae"]), run)["vae"]
    decoder = DecoderStage(run, steps["decoder"], vae)
    train(decoder, run)
    vae = decoder.finish()
    latents = Latents(run.folder / "latents", vae, run)
    base = train(UnetStage(run, steps["unet"], latents), run)
    solutions = Solutions(run.folder / "solutions", base, run)
    student = train(StudentStage(run, steps["student"], solutions, base), run)
    return _Models(vae=vae, base=base, student=student["unet"], scaling_factor=latents.scaling_factor)


def _loaded(folder: Path, device: str) -> _Models:
    """The same from finished checkpoints."""
    vae, base = load(folder / BASE, device)
    student = load(folder / STUDENT, device)[1]["unet"]
    return _Models(vae=vae, base=base, student=student, scaling_factor=float(vae.config.scaling_factor))


def _result(run: Run, name: str, parts: dict[str, nn.Module], configs: dict[str, dict[str, Any]]) -> None:
    if run.rank == 0:
        result = run.folder / "result"
        save(result / name, parts, configs)
        if name != BASE:
            share(result / name, result / BASE)
