"""The demo model's engines, built for the GPU of this host, against torch and the same model on the processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_checks import PlainDevice, engine_errors, fifth_percentile, grown, latents_psnr, resident

from sdxl_trt.bench.peer import load_diffusers
from sdxl_trt.paths import DEMO_CHECKPOINT
from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.loading import load
from sdxl_trt.runtime.ort_cuda import CudaOrtEngine

pytestmark = pytest.mark.gpu

ENGINE_ERROR = 2e-2  # of float16: largest difference over largest magnitude
PSNR, PROMPTS = 40.0, 50
PICTURES = 1000
OTHERS = 16 * 2**20  # bytes that others on the GPU may take meanwhile
HEAP = 32 * 2**20  # bytes that Python's and the libraries' own heaps may grow by


def test_pictures_are_those_of_the_processor(gpu: CudaDevice, bundle: Path, demo_bundle: Path) -> None:
    pipeline = Pipeline(load(bundle, device=gpu), gpu)
    reference = Pipeline.load(demo_bundle)
    for settings in (
        {"size": (128, 128)},
        {"size": (192, 96), "guidance": 1.0},
        {"size": (128, 128), "seed": [1, 2, 3]},
    ):
        got, wanted = (
            each("a red circle on a white background", **{"steps": 20, "seed": 7, **settings})
            for each in (pipeline, reference)
        )
        for mine, theirs in zip(got.images, wanted.images, strict=True):
            error = np.abs(np.asarray(mine, np.int16) - np.asarray(theirs, np.int16)).mean()
            print(f"{settings}: mean difference measured {error:.2f} of 255, required < 8 (float16 against float32)")
            assert error < 8


def test_each_engine_agrees_with_torch(gpu: CudaDevice, bundle: Path) -> None:
    """Torch in float32 on the processor."""
    found = engine_errors(load(bundle, device=gpu), DEMO_CHECKPOINT, gpu, ENGINE_ERROR)
    assert max(found.values()) <= ENGINE_ERROR


def test_latents_agree_with_torch(gpu: CudaDevice, bundle: Path) -> None:
    """From prompt to latents, 30 steps with guidance, against diffusers in float32 on the processor."""
    pipeline = Pipeline(load(bundle, device=gpu), gpu)
    found = latents_psnr(pipeline, load_diffusers(DEMO_CHECKPOINT, 2), PROMPTS, steps=30)
    lowest = fifth_percentile(found)
    print(f"PSNR of {PROMPTS} prompts, 5th percentile: measured {lowest:.1f} dB, required {PSNR:g}")
    assert lowest >= PSNR


def test_replays_are_plain_launches(gpu: CudaDevice, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same kernels in the same order: the same numbers, bit by bit."""
    settings: dict[str, Any] = {"steps": 8, "seed": [1, 2, 3], "size": (128, 96), "sampler": "euler_a"}
    recorded = Pipeline(load(bundle, device=gpu), gpu)("a blue square", output="latents", **settings).latents
    options = CudaOrtEngine._options
    monkeypatch.setattr(CudaOrtEngine, "_options", lambda engine: options(engine) | {"enable_cuda_graph": "0"})
    device = PlainDevice()
    with Pipeline(load(bundle, device=device), device) as plain:
        np.testing.assert_array_equal(recorded, plain("a blue square", output="latents", **settings).latents)


def test_a_thousand_pictures_leave_nothing_behind(gpu: CudaDevice, bundle: Path) -> None:
    pipeline = Pipeline(load(bundle, device=gpu), gpu)

    def draw(seed: int) -> Any:
        return pipeline("a blue square", seed=seed, steps=2, size=(128, 128)).latents

    first = draw(0)
    before = gpu.memory()
    host = grown(draw, PICTURES, resident)
    after = gpu.memory()
    print(f"before and after {PICTURES} pictures: {before}, {after}; the host's memory grew by {host / 2**20:.1f} MiB")
    assert (after.allocated, after.peak) == (before.allocated, before.peak)
    assert after.free > before.free - OTHERS
    assert host < HEAP
    np.testing.assert_array_equal(draw(0), first)
