"""The GPU of this host, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sdxl_trt.errors import FlavourUnavailable
from sdxl_trt.runtime.cuda import CudaDevice


@pytest.fixture
def gpu() -> Iterator[CudaDevice]:
    try:
        device = CudaDevice()
    except FlavourUnavailable as error:
        pytest.skip(f"{error.what}: {error.got}")
    with device:
        yield device
