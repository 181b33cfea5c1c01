"""The demo model's engines, built for the GPU of this host, against the same model on the processor."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
from models import Models

from sdxl_trt.engines.build import build
from sdxl_trt.engines.flavours import FLAVOURS, check_buildable
from sdxl_trt.engines.targets import TargetRequest
from sdxl_trt.errors import FlavourUnavailable
from sdxl_trt.gpus import RTX_SMS
from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.loading import load
from sdxl_trt.spec import Profile

pytestmark = pytest.mark.gpu


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def bundle(request: pytest.FixtureRequest, gpu: CudaDevice, models: Models, tmp_path: Path) -> Path:
    flavour = FLAVOURS[request.param]
    if flavour.sms is not None and gpu.sm not in RTX_SMS:
        pytest.skip(f"TensorRT for RTX has no kernels for SM {gpu.sm}")
    try:
        check_buildable(flavour, (gpu.sm,))
    except FlavourUnavailable as error:
        pytest.skip(f"{error.what}: {error.got}")
    target = TargetRequest(flavour=flavour, sms=(gpu.sm,), processor=platform.machine())
    profile = Profile.make(smallest=(64, 64), best=(128, 128), largest=(256, 256), batch=4)
    build(models.export("demo"), tmp_path / "bundle", [target], profile=profile)
    return tmp_path / "bundle"


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


def test_a_warm_pipeline_allocates_nothing(gpu: CudaDevice, bundle: Path) -> None:
    pipeline = Pipeline(load(bundle, device=gpu), gpu)
    settings = {"steps": 4, "size": (128, 128)}
    first = pipeline("a blue square", seed=1, **settings).latents
    before = gpu.memory()
    for seed in (*range(2, 102), 1):
        last = pipeline("a blue square", seed=seed, **settings).latents
    print(f"before and after 101 pictures: {before}, {gpu.memory()}")
    assert (gpu.memory().allocated, gpu.memory().peak) == (before.allocated, before.peak)
    assert gpu.memory().free > before.free - 2**24  # others use the GPU too, a little
    np.testing.assert_array_equal(last, first)
