"""The peer: diffusers' StableDiffusionXLPipeline, eager, in float32 on the CPU, on the demo checkpoint.

`python -m benchmarks.peer OUT SEED THREADS` is what a short script of a diffusers user would be: it writes one picture
as PNG, and prints how long loading (imports included) and the picture took, as `sdxl-trt run --json` does.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from sdxl_trt.bench.peer import load_diffusers
from sdxl_trt.paths import DEMO_CHECKPOINT

PROMPT = "a large red circle on a white background"
STEPS = 30
GUIDANCE = 5.0
EDGE = 128
"""Width and height in pixels."""
PACKAGES = ("torch", "diffusers", "transformers", "accelerate")


def run_diffusers(
    pipeline: Any, seeds: tuple[int, ...], *, steps: int = STEPS, edge: int = EDGE, output: str = "pil"
) -> Any:
    """Pictures of `PROMPT`, one per seed: a list of PIL images; for output 'latent' a float32 tensor [N, 4, h, w]."""
    import torch

    return pipeline(
        PROMPT,
        num_inference_steps=steps,
        guidance_scale=GUIDANCE,
        width=edge,
        height=edge,
        num_images_per_prompt=len(seeds),
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        output_type=output,
    ).images


def main(out: Path, seed: int, threads: int) -> None:
    """Write one picture; print seconds by stage as JSON."""
    started = time.monotonic()
    pipeline = load_diffusers(DEMO_CHECKPOINT, threads)
    loaded = time.monotonic()
    run_diffusers(pipeline, (seed,))[0].save(out)
    print(json.dumps({"seconds": {"load": loaded - started, "pictures": time.monotonic() - loaded}}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
