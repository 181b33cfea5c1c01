"""SDXL at its true size on a GPU: everything finite. `./scripts/gpu` builds the bundles, of random weights."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.loading import load

pytestmark = pytest.mark.gpu

FOLDER = "SDXL_TRT_FULLSIZE"
"""Variable that names the folder with base-bundle and turbo-bundle."""
PROMPTS = ("a lighthouse on a rock in the sea", "", "word " * 70)


@pytest.mark.parametrize(
    ("name", "edge", "steps", "guidance"), [("base-bundle", 1024, 6, 5.0), ("turbo-bundle", 512, 1, 1.0)]
)
def test_nothing_is_nan_or_infinite(gpu: CudaDevice, name: str, edge: int, steps: int, guidance: float) -> None:
    """The pipeline itself refuses latents and pictures that are; what comes out is no plain surface either."""
    bundle = Path(os.environ.get(FOLDER, "")) / name
    if FOLDER not in os.environ or not bundle.is_dir():
        pytest.skip(f"no full-size bundle: {FOLDER} names no folder with {name}; ./scripts/gpu makes it")
    pipeline = Pipeline(load(bundle, device=gpu), gpu)
    for seed, prompt in enumerate(PROMPTS):
        result = pipeline(prompt, seed=seed, steps=steps, guidance=guidance, size=(edge, edge))
        spread = float(np.asarray(result.images[0]).std())
        print(f"{name}, {prompt[:20]!r}: latents up to {np.abs(result.latents).max():.3g}, pixels spread {spread:.1f}")
        assert np.isfinite(result.latents).all()
        assert spread > 1
