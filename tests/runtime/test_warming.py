"""What is warmed up makes no later request of its shapes wait: nothing is bound, recorded or allocated any more."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recording_driver import RecordingDriver
from shim_onnxruntime import Shim

from sdxl_trt.errors import UnsupportedSize, UsageError
from sdxl_trt.runtime import Pipeline, loading
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.device import Buffer
from sdxl_trt.runtime.ort import OrtBinding, OrtEngine
from sdxl_trt.runtime.ort_cuda import CudaOrtEngine

SIZES = [(64, 72), (128, 128)]
BATCHES = (1, 3)
PREPARING = (
    "cuMemAlloc",
    "cuMemHostAlloc",
    "cuStreamCreate",
    "cuEventCreate",
    "cuStreamBeginCapture",
    "cuGraphInstantiate",
)
PICTURE = np.zeros((72, 64, 3), np.uint8)


class Recorded(CudaOrtEngine):
    """onnxruntime's CPU session on the streams of the recording driver, to be recorded as TensorRT's engines are."""

    def bind(self, buffers: Mapping[str, Buffer]) -> OrtBinding:
        return RecordedBinding(self, self._session.session, buffers)


class RecordedBinding(OrtBinding):
    def enqueue(self, stream: Any) -> None:
        driver = self._engine.device._context.cu  # type: ignore[attr-defined]
        driver.launch(stream.handle, lambda: OrtBinding.enqueue(self, stream))


class Warm:
    """A pipeline of the demo model on the recording driver."""

    def __init__(self, bundle: Path, engine: type[CudaOrtEngine], monkeypatch: pytest.MonkeyPatch) -> None:
        self.driver, self.bound = RecordingDriver(late=True), 0
        monkeypatch.setitem(sys.modules, "onnxruntime", Shim(self.driver))
        monkeypatch.setattr(loading, "CudaOrtEngine", engine)
        bind = engine.bind

        def watched(engine: CudaOrtEngine, buffers: Mapping[str, Buffer]) -> Any:
            self.bound += 1
            return bind(engine, buffers)

        monkeypatch.setattr(engine, "bind", watched)
        device = CudaDevice(driver=self.driver)
        self.pipe = Pipeline(loading.load(bundle, threads=1, device=device), device)

    def prepared(self) -> Counter[str]:
        """Of what a request should not wait for, how much was done so far."""
        return Counter({"bind": self.bound, **{name: self.driver.calls[name] for name in PREPARING}})


@pytest.fixture(params=[Recorded, CudaOrtEngine], ids=["recorded by us", "by onnxruntime"])
def warm(request: pytest.FixtureRequest, cuda_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Warm:
    return Warm(cuda_bundle, request.param, monkeypatch)


def draw(pipe: Pipeline, size: tuple[int, int], batch: int) -> None:
    """With guidance, without, and where it ends; from nothing and from a picture; with previews."""
    for settings in ({"guidance": 5.0}, {"guidance": 1.0, "negative_prompt": "blue"}, {"guidance_end": 0.5}):
        given: Any = {"size": size, "seed": range(batch), "steps": 4, "callback": lambda step: step.preview()}
        pipe("a red circle", **given, **settings)
        pipe("a red circle", image=PICTURE, strength=0.5, **given, **settings)


def test_nothing_is_prepared_later(warm: Warm) -> None:
    seconds = warm.pipe.warm_up(SIZES, BATCHES)
    assert list(seconds) == [(size, batch) for size in SIZES for batch in BATCHES]
    assert all(each > 0 for each in seconds.values())
    before = warm.prepared()
    print(before)
    # For each size the step with 1, 2, 4 and 8 rows, and the VAE's two engines; two text encoders with one and with two
    # chunks; the VAE's two engines for the chart that previews are fitted to.
    assert before["bind"] == len(SIZES) * (4 + 2) + 2 * 2 + 2
    assert before["cuStreamBeginCapture"] in (0, before["bind"])
    for size in SIZES:
        for batch in BATCHES:
            draw(warm.pipe, size, batch)
    assert warm.prepared() == before


def test_it_stays_prepared_whatever_else_is_drawn(warm: Warm) -> None:
    warm.pipe.warm_up(SIZES[:1])
    for width in range(80, 144, 8):
        warm.pipe("a red circle", size=(width, 64), steps=1)
    before = warm.prepared()
    draw(warm.pipe, SIZES[0], 1)
    assert warm.prepared() == before


def test_more_pictures_than_slots(warm: Warm) -> None:
    """Four at once, and then the fifth alone."""
    warm.pipe.warm_up([(64, 64)], [5])
    before = warm.prepared()
    draw(warm.pipe, (64, 64), 5)
    assert warm.prepared() == before


def test_the_processor_is_warmed_up_too(demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cold, warm = (Pipeline.load(demo_bundle, threads=1) for _ in range(2))
    bound, bind = list[str](), OrtEngine.bind

    def watched(self: OrtEngine, buffers: Mapping[str, Buffer]) -> OrtBinding:
        bound.append(self.name)
        return bind(self, buffers)

    monkeypatch.setattr(OrtEngine, "bind", watched)
    seconds = warm.warm_up(SIZES, BATCHES, chunks=(1, 2))
    assert all(each > 0 for each in seconds.values())
    assert set(bound) == {"step", "vae_decoder", "vae_encoder", "text_encoder", "text_encoder_2"}
    bound.clear()
    for prompt in ("a red circle", "a red circle " * 30):
        settings: Any = {"size": SIZES[0], "seed": (1, 2, 3), "steps": 2}
        got = warm(prompt, **settings).latents
        assert bound == []
        np.testing.assert_array_equal(got, cold(prompt, **settings).latents)
        bound.clear()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"sizes": [(64, 64), (130, 128)]}, UnsupportedSize),
        ({"sizes": [64]}, UsageError),
        ({"sizes": [(64, 64)], "batches": [0]}, UsageError),
        ({"sizes": [(64, 64)], "chunks": [5]}, UsageError),
    ],
)
def test_shapes_that_the_engines_do_not_take(
    demo_bundle: Path, arguments: dict[str, Any], error: type[UsageError], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = Pipeline.load(demo_bundle, threads=1)
    monkeypatch.setattr(OrtEngine, "bind", lambda *_: pytest.fail("it started"))
    with pytest.raises(error):
        pipe.warm_up(**arguments)
