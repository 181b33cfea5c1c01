"""What is served beside the plain base model: refiners in both ways, inpainting UNets, and more sizes than loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeness import relative_error
from models import Models
from served import Counting, open_service

from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.request import Request
from sdxl_trt.runtime.serve.job import Terms
from sdxl_trt.runtime.serve.seats import LOOPS

REQUIRED = 1e-4
PROMPT = "a large red circle on a white background"
GREY = np.full((64, 64, 3), 128, np.uint8)
MASK = np.full((64, 64), 255, np.uint8)


def check(bundle: Path, *asked: dict[str, Any]) -> Counting:
    """All at once in the service against each alone in a pipeline."""
    requests = [Request(**{"prompt": PROMPT, "seed": 3, "size": (64, 64)} | settings) for settings in asked]
    counting = Counting()
    service = open_service(bundle, observer=counting)
    jobs = [service.submit(request, Terms(client=str(i))) for i, request in enumerate(requests)]
    with Pipeline.load(bundle, threads=1) as pipeline:
        for request, job in zip(requests, jobs, strict=True):
            got, wanted = job.result.result(120), pipeline.run(request)
            assert relative_error(got.latents, wanted.latents, REQUIRED, str(request.size)) <= REQUIRED
            assert got.refiner == wanted.refiner
    assert service.drain(30)
    return counting


@pytest.mark.parametrize("way", [{"refiner_start": 0.6}, {"refiner_strength": 0.5}], ids=str)
def test_a_refiner_goes_on_among_others(models: Models, way: dict[str, float]) -> None:
    several = {"steps": 8, "seed": (4, 5), **way}
    check(models.bundle("epsilon", "refiner"), {"steps": 6, **way}, {"steps": 9}, several)


def test_an_inpainting_unet(models: Models) -> None:
    shared = {"image": GREY, "mask": MASK, "strength": 0.8}
    check(models.bundle("inpaint"), {"steps": 5, **shared}, {"steps": 4, "seed": 9, **shared})


def test_more_sizes_than_loops(demo_bundle: Path) -> None:
    """Pictures of the size whose loop goes are parked, whatever order ranks give."""
    sizes = [(64 + 8 * i, 64) for i in range(LOOPS + 2)]
    counting = check(demo_bundle, *({"size": size, "steps": 3 + i % 3} for i, size in enumerate(sizes)))
    assert len(counting.ends) == len(sizes)
