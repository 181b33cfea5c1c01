"""All stages, one after another, and the checkpoints that come out."""

from __future__ import annotations

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
from scripts.demo_model.unet import UnetStage
from scripts.demo_model.vae import VaeStage
from sdxl_trt.paths import DEMO_CHECKPOINT

STEPS = {
    "vae": 4500,
    "decoder": 2000,
    "unet": 19000,
    "soft-vae": 3000,
    "soft-unet": 3000,
    "student": 4000,
    "refiner": 1000,
}
"""Steps of each stage, in their order."""
BASE = DEMO_CHECKPOINT.name
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
        start: a base checkpoint that stands for what the first three stages give.
    """
    if run.workers > 1:
        torch.set_num_threads(1)
        distributed.init_process_group("gloo", init_method=address, rank=run.rank, world_size=run.workers)
    torch.set_flush_denormal(True)
    vae, base = load(start, run.device) if start else _first(run, steps)
    vae = train(SoftVaeStage(run, steps["soft-vae"], vae), run)["vae"]
    latents = Latents(run.folder / "soft-latents", vae, run)
    scaled = {"vae": {"scaling_factor": latents.scaling_factor}}
    base = train(SoftUnetStage(run, steps["soft-unet"], latents, base), run)
    _result(run, BASE, {"vae": vae, **base}, scaled)
    solutions = Solutions(run.folder / "solutions", base, run)
    student = train(StudentStage(run, steps["student"], solutions, base), run)
    _result(run, BASE + "-turbo", {"vae": vae, **base, **student}, scaled | {"scheduler": SCHEDULER})
    refiner = train(RefinerStage(run, steps["refiner"], latents, base), run)
    parts = {"vae": vae, "text_encoder_2": base["text_encoder_2"], **refiner}
    _result(run, BASE + "-refiner", parts, scaled | {"unet": refiner_config(), "": REFINER_INDEX})


def _first(run: Run, steps: dict[str, int]) -> tuple[Any, nn.ModuleDict]:
    """The autoencoder; UNet and text encoders. Small originals do not come out soft yet."""
    vae = train(VaeStage(run, steps["vae"]), run)["vae"]
    decoder = DecoderStage(run, steps["decoder"], vae)
    train(decoder, run)
    vae = decoder.finish()
    latents = Latents(run.folder / "latents", vae, run)
    return vae, train(UnetStage(run, steps["unet"], latents), run)


def _result(run: Run, name: str, parts: dict[str, nn.Module], configs: dict[str, dict[str, Any]]) -> None:
    if run.rank == 0:
        result = run.folder / "result"
        save(result / name, parts, configs)
        if name != BASE:
            share(result / name, result / BASE)
