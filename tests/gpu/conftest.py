"""The GPU of this host, or the reason why there is none; and the demo model's engines for it."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
from models import Models

from sdxl_trt.engines.build import build
from sdxl_trt.engines.flavours import FLAVOURS, check_buildable
from sdxl_trt.engines.targets import TargetRequest
from sdxl_trt.errors import FlavourUnavailable
from sdxl_trt.gpus import RTX_SMS
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.host import this_host
from sdxl_trt.spec import Profile


@pytest.fixture
def gpu() -> Iterator[CudaDevice]:
    try:
        device = CudaDevice()
    except FlavourUnavailable as error:
        pytest.skip(f"{error.what}: {error.got}")
    with device:
        yield device


@pytest.fixture(params=["tensorrt", "tensorrt-rtx", "onnxruntime-cuda"])
def bundle(request: pytest.FixtureRequest, gpu: CudaDevice, models: Models, tmp_path: Path) -> Path:
    """The demo model's, 64 to 256 pixels and up to four pictures at once."""
    flavour = FLAVOURS[request.param]
    if flavour.name not in this_host(gpu).flavours:
        pytest.skip(f"no {flavour.module} that can run {flavour.name} engines is installed")
    if flavour.name == "tensorrt-rtx" and gpu.sm not in RTX_SMS:
        pytest.skip(f"TensorRT for RTX has no kernels for SM {gpu.sm}")
    sms = () if flavour.sms == () else (gpu.sm,)
    try:
        check_buildable(flavour, sms)
    except FlavourUnavailable as error:
        pytest.skip(f"{error.what}: {error.got}")
    target = TargetRequest(flavour=flavour, sms=sms, processor=platform.machine())
    profile = Profile.make(smallest=(64, 64), best=(128, 128), largest=(256, 256), batch=4)
    build(models.export("demo"), tmp_path / "bundle", [target], profile=profile)
    return tmp_path / "bundle"
