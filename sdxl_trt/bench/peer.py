"""diffusers' StableDiffusionXLPipeline as its documentation runs it: `python -m sdxl_trt.bench.peer SETTINGS`.

The only part of `bench` with torch, and a process of its own. SETTINGS is a `Job` as JSON; one JSON object is printed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdxl_trt.bench.machine import peak_memory


def be_quiet() -> None:
    """Imports diffusers and transformers so that they load without progress, advice and requests."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()


def load_diffusers(checkpoint: Path, threads: int, dtype: str = "float32") -> Any:
    """The pipeline of a checkpoint in diffusers' layout, on so many threads; it prints no progress.

    Args:
        checkpoint: its folder; float16 weights are taken where there are any.
        threads: of the processor.
        dtype: that weights are cast to.
    """
    be_quiet()
    import torch
    from diffusers import StableDiffusionXLPipeline

    torch.set_num_threads(threads)
    options = {"variant": "fp16"} if any(checkpoint.glob("unet/*.fp16.safetensors")) else {}
    pipeline = StableDiffusionXLPipeline.from_pretrained(checkpoint, dtype=getattr(torch, dtype), **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def compile_networks(pipeline: Any, device: str) -> None:
    """As diffusers' guide to torch.compile has it: UNet and VAE decoder, in the layout that convolutions like best."""
    import torch

    mode = None if device == "cpu" else "max-autotune"
    for module in (pipeline.unet, pipeline.vae):
        module.to(memory_format=torch.channels_last)
    pipeline.unet = torch.compile(pipeline.unet, mode=mode, fullgraph=True)
    pipeline.vae.decode = torch.compile(pipeline.vae.decode, mode=mode, fullgraph=True)


def draw(pipeline: Any, job: dict[str, Any], batch: int) -> float:
    """Make so many pictures at once; seconds until they are on the host."""
    import torch

    started = time.perf_counter()
    pipeline(
        job["prompt"],
        width=job["size"][0],
        height=job["size"][1],
        num_inference_steps=job["steps"],
        guidance_scale=job["guidance"],
        num_images_per_prompt=batch,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in range(batch)],
    )
    return time.perf_counter() - started


def measure(pipeline: Any, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each batch size: seconds of the first call and of those that are counted, and peaks of memory in bytes."""
    import torch

    for batch in job["batches"]:
        first = draw(pipeline, job, batch)
        yield {
            "batch": batch,
            "first": first,
            "seconds": [draw(pipeline, job, batch) for _ in range(job["repeats"])],
            "host_peak": peak_memory(),
            "gpu_peak": None if job["device"] == "cpu" else torch.cuda.max_memory_allocated(),
        }


def main(job: dict[str, Any]) -> None:
    """Do a job, and print what was found."""
    dtype = "float32" if job["device"] == "cpu" else "float16"
    pipeline = load_diffusers(Path(job["checkpoint"]), job["threads"], dtype).to(job["device"])
    if job["compiled"]:
        compile_networks(pipeline, job["device"])
    print(json.dumps({"dtype": dtype, "batches": list(measure(pipeline, job))}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
