"""Pipelines are closed: nothing of them is left, neither on the processor nor on a GPU, and calls are refused."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recording_driver import RecordingDriver
from shim_onnxruntime import Shim

from sdxl_trt.errors import BundleError, UsageError
from sdxl_trt.runtime import Pipeline, loading, pipeline
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.engine import Engine

CALLS: dict[str, Callable[[Pipeline], Any]] = {
    "call": lambda pipe: pipe("a star", steps=1),
    "encode": lambda pipe: pipe.encode("a star"),
    "word": lambda pipe: pipe.load_textual_inversion(Path("word.safetensors")),
}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Engine]]:
    """Engines that are opened from now on."""
    engines: list[weakref.ref[Engine]] = []
    open_engine = loading._Source.open_engine

    def watched(self: Any, entry: Any, name: str) -> Engine:
        engine = open_engine(self, entry, name)
        engines.append(weakref.ref(engine))
        return engine

    monkeypatch.setattr(loading._Source, "open_engine", watched)
    return engines


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> RecordingDriver:
    """Of the GPU that pipelines are loaded for."""
    driver = RecordingDriver(late=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", Shim(driver))
    monkeypatch.setattr(pipeline, "open_device", lambda _: CudaDevice(driver=driver))
    return driver


def test_nothing_of_it_is_left(demo_bundle: Path, opened: list[weakref.ref[Engine]]) -> None:
    with Pipeline.load(demo_bundle, threads=1) as pipe:
        picture = pipe("a red circle", steps=4, seed=1, image=np.zeros((128, 128, 3), np.uint8)).images[0]
        assert len(opened) == 5
        assert all(engine() for engine in opened)
    assert not any(engine() for engine in opened)  # at once: without the garbage collector
    assert picture.size == (128, 128)
    pipe.close()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_calls_afterwards_are_refused(
    demo_bundle: Path, call: Callable[[Pipeline], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "read_inversion", lambda *_: None)
    pipe = Pipeline.load(demo_bundle, threads=1)
    pipe.close()
    with pytest.raises(UsageError, match="this Pipeline was closed") as caught:
        call(pipe)
    assert caught.value.fix == "Pipeline.load(…) again"


def test_a_call_that_is_under_way_is_waited_for(demo_bundle: Path) -> None:
    pipe = Pipeline.load(demo_bundle, threads=1)
    begun, closed = threading.Event(), threading.Event()

    def close() -> None:
        begun.wait()
        pipe.close()
        closed.set()

    thread = threading.Thread(target=close)
    thread.start()

    def callback(_: Any) -> None:
        begun.set()
        assert not closed.wait(0.05)

    assert pipe("a red circle", steps=2, callback=callback).images
    thread.join()
    assert closed.is_set()


def test_a_gpu_is_given_back_after_its_engines(
    cuda_bundle: Path, opened: list[weakref.ref[Engine]], driver: RecordingDriver
) -> None:
    contexts: list[int] = []
    with Pipeline.load(cuda_bundle, threads=1, device="cuda") as pipe:
        pipe("a red circle", steps=2, seed=1)
        for engine in opened:
            weakref.finalize(engine(), lambda: contexts.append(driver.contexts))
    assert contexts == [1] * len(opened)
    assert driver.contexts == 0
    assert not +driver.live


def test_a_gpu_is_given_back_where_loading_fails(
    cuda_bundle: Path, driver: RecordingDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts: list[int] = []
    open_session = Shim.InferenceSession

    def watched(shim: Shim, *arguments: Any, **options: Any) -> Any:
        session = open_session(shim, *arguments, **options)
        weakref.finalize(session, lambda: contexts.append(driver.contexts))
        return session

    def fail(*_: Any) -> Any:
        raise BundleError("the tokenizer cannot be read")

    monkeypatch.setattr(Shim, "InferenceSession", watched)
    monkeypatch.setattr(loading, "Tokenizer", fail)
    with pytest.raises(BundleError, match="tokenizer"):
        Pipeline.load(cuda_bundle, threads=1, device="cuda")
    assert contexts
    assert set(contexts) == {1}  # engines go before their device
    assert driver.contexts == 0
    assert not +driver.live
