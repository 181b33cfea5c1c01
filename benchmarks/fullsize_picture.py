"""One picture of a full-size, Turbo-like model on the CPU: `python -m benchmarks.fullsize_picture WHO MODEL OUT`.

512×512, one trailing Euler step, no guidance, float32, random weights. WHO is 'ours', with MODEL a bundle; or 'theirs',
diffusers with MODEL a checkpoint in its layout. Each writes picture.png and latents.npy into the folder OUT.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.report import Report
from benchmarks.watch import Watched, watch
from sdxl_trt.bench.machine import usable_cpus
from sdxl_trt.bench.rows import Row

PROMPT = "a lighthouse on a rock in the sea"
EDGE = 512
"""Width and height in pixels."""
SEED = 7
WHO = {"ours": "sdxl-trt", "theirs": "diffusers"}


def ours(bundle: Path, out: Path) -> None:
    """With our runtime."""
    from sdxl_trt.runtime import Pipeline

    pipeline = Pipeline.load(bundle)
    result = pipeline(PROMPT, steps=1, guidance=1.0, seed=SEED, size=(EDGE, EDGE), sampler="euler")
    np.save(out / "latents.npy", result.latents)
    result.images[0].save(out / "picture.png")


def theirs(checkpoint: Path, out: Path) -> None:
    """With diffusers, as its documentation runs SDXL-Turbo, but in float32 and with Euler's method."""
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    torch.set_num_threads(usable_cpus())
    pipeline = StableDiffusionXLPipeline.from_pretrained(checkpoint, variant="fp16", dtype=torch.float32)
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    latents = pipeline(
        PROMPT,
        num_inference_steps=1,
        guidance_scale=0.0,
        width=EDGE,
        height=EDGE,
        generator=torch.Generator("cpu").manual_seed(SEED),
        output_type="latent",
    ).images
    np.save(out / "latents.npy", latents.numpy())
    with torch.no_grad():
        decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor, return_dict=False)[0]
    pipeline.image_processor.postprocess(decoded)[0].save(out / "picture.png")


def measure_picture(models: dict[str, Path], folder: Path) -> Report:
    """Both programs, each in a process of its own; how far apart their latents and pictures are.

    Args:
        models: a bundle for 'ours' and its checkpoint for 'theirs'.
        folder: where results go.
    """
    rows = []
    for who, model in models.items():
        out = folder / f"picture-{who}"
        out.mkdir(exist_ok=True)
        watched = watch([sys.executable, "-m", __spec__.name, who, model, out], log=out / "log")
        rows += _rows(WHO[who], watched)
    return Report(
        title="A picture of a full-size, Turbo-like model on the CPU, process start to end, float32",
        settings={"size": f"{EDGE}×{EDGE}", "steps": 1, "guidance": "none", "seed": SEED, "weights": "random"},
        distributions=("sdxl-trt", "onnxruntime", "numpy", "torch", "diffusers", "transformers", "accelerate"),
        rows=[*rows, *_differences(folder / "picture-ours", folder / "picture-theirs")],
        notes=("Anonymous memory is what no file backs; the system can drop the rest when it needs room.",),
    )


def _rows(who: str, watched: Watched) -> list[Row]:
    figures = (
        ("time", "s", watched.seconds),
        ("peak memory", "bytes", watched.resident),
        ("peak anonymous memory", "bytes", watched.anonymous),
    )
    return [Row(who=who, what=what, unit=unit, samples=(value,)) for what, unit, value in figures]


def _differences(one: Path, other: Path) -> list[Row]:
    a, b = (np.load(each / "latents.npy") for each in (one, other))
    distance = float(np.abs(a - b).max() / np.abs(b).max())
    p, q = (np.asarray(Image.open(each / "picture.png").convert("RGB"), np.int16) for each in (one, other))
    return [
        Row(who="both", what="relative latent error", unit="of max", samples=(distance,)),
        Row(who="both", what="largest pixel difference", unit="of 255", samples=(float(np.abs(p - q).max()),)),
        Row(who="sdxl-trt", what="standard deviation of pixels", unit="of 255", samples=(float(p.std()),)),
    ]


if __name__ == "__main__":
    {"ours": ours, "theirs": theirs}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
