"""The checks that GPU engines must pass, tried on the processor's, where what they ask is known to hold."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from gpu_checks import engine_errors, fifth_percentile, grown, latents_psnr, psnr, resident

from sdxl_trt.bench.peer import load_diffusers
from sdxl_trt.paths import DEMO_CHECKPOINT
from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.device import HostDevice
from sdxl_trt.runtime.loading import load

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_psnr_of_known_arrays() -> None:
    wanted = np.array([4.0, -8.0, 0.0, 1.0], np.float32)
    assert psnr(wanted, wanted) == math.inf
    assert psnr(wanted + np.float32(0.08), wanted) == pytest.approx(40, abs=1e-4)  # a hundredth of the peak
    assert psnr(wanted + np.array([0.16, 0, 0, 0], np.float32), wanted) == pytest.approx(40, abs=1e-4)
    assert psnr(np.full(4, np.nan, np.float32), wanted) != psnr(wanted, wanted)


def test_fifth_percentile() -> None:
    assert fifth_percentile(range(101)) == 5
    assert fifth_percentile([30.0] + [50.0] * 99) == 50


def test_engines_of_the_processor_agree_with_torch(demo_bundle: Path) -> None:
    found = engine_errors(load(demo_bundle, threads=1), DEMO_CHECKPOINT, HostDevice(), 1e-4)
    assert set(found) == {"text_encoder", "text_encoder_2", "step", "vae_decoder", "vae_encoder"}
    assert max(found.values()) <= 1e-4


def test_latents_of_the_processor_agree_with_torch(demo_bundle: Path) -> None:
    found = latents_psnr(Pipeline.load(demo_bundle, threads=1), load_diffusers(DEMO_CHECKPOINT, 1), 2, steps=4)
    print(f"PSNR measured {found} dB, required 80")
    assert fifth_percentile(found) >= 80


def test_pictures_on_the_processor_leave_nothing_behind(demo_bundle: Path) -> None:
    pipeline = Pipeline.load(demo_bundle, threads=1)
    added = grown(lambda seed: pipeline("a blue square", seed=seed, steps=1, size=(64, 64)), 60, resident)
    print(f"resident memory after 60 pictures: measured {added / 2**20:.1f} MiB more, required < 4")
    assert added < 4 * 2**20


def test_growth_is_noticed() -> None:
    """What the check above is worth: forty mebibytes a picture, more than what was freed before can be given for."""
    kept: list[np.ndarray] = []
    assert grown(lambda seed: kept.append(np.ones(5 * 2**20)), 20, resident) > 100 * 2**20
