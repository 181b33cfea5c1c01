"""Engines that take turns on the processor and on a recorded GPU: the same pictures, one engine at a time, no leaks."""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import Models
from recording_driver import RecordingDriver
from shim_onnxruntime import Shim

from sdxl_trt.errors import OutOfMemory
from sdxl_trt.runtime import Fleet, Pipeline, loading, pipeline
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.engine import Engine

PROMPT = "a large red circle on a white background"
GREY = np.full((128, 128, 3), 128, np.uint8)
TEXT_TO_IMAGE = ["text_encoder", "text_encoder_2", "step", "vae_decoder"]


class Watch:
    """Engines that are opened, in their order; none while another one is there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names = list[str]()
        self.engines = list[weakref.ref[Engine]]()
        self.fail: str | None = None
        open_engine = loading._Source.open_engine

        def watched(source: Any, entry: Any, name: str) -> Engine:
            self.names.append(name)
            assert not any(engine() for engine in self.engines), "it is opened before the last one has gone"
            if name == self.fail:
                raise OutOfMemory(f"no room for {name}")
            engine = open_engine(source, entry, name)
            self.engines.append(weakref.ref(engine))
            return engine

        monkeypatch.setattr(loading._Source, "open_engine", watched)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


REQUESTS: dict[str, Callable[[Pipeline], Any]] = {
    "text": lambda pipe: pipe(PROMPT, steps=3, seed=(1, 2)),
    "image": lambda pipe: pipe(PROMPT, steps=4, seed=1, image=GREY, strength=0.5),
    "another negative length": lambda pipe: pipe(PROMPT, negative_prompt="a star, " * 40, steps=2, seed=1),
    "previews": lambda pipe: pipe(PROMPT, steps=3, seed=1, callback=lambda step: step.preview()),
    "no guidance at the end": lambda pipe: pipe(PROMPT, steps=4, seed=1, guidance_end=0.5),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_the_same_pictures_to_the_bit(
    demo_bundle: Path, request_: Callable[[Pipeline], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Pipeline.load(demo_bundle, threads=1, memory="resident") as pipe:
        wanted = request_(pipe)
    Watch(monkeypatch)
    with Pipeline.load(demo_bundle, threads=1, memory="swap") as pipe:
        for _ in range(2):
            got = request_(pipe)
            np.testing.assert_array_equal(got.latents, wanted.latents)
            for ours, theirs in zip(got.images, wanted.images, strict=True):
                np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_the_order_of_the_turns(demo_bundle: Path, watch: Watch) -> None:
    with Pipeline.load(demo_bundle, threads=1, memory="swap") as pipe:
        assert watch.names == []  # nothing is opened before it is needed
        assert (pipe.memory.policy, pipe.memory.swaps) == ("swap", True)
        pipe(PROMPT, steps=2, seed=1)
        pipe(PROMPT, steps=2, seed=1)
        expected = [*TEXT_TO_IMAGE, *TEXT_TO_IMAGE[2:]]
        assert watch.names == expected  # what the text encoders gave was kept
        pipe(PROMPT, steps=2, seed=1, image=GREY, strength=1.0)
        assert watch.names == [*expected, "vae_encoder", "step", "vae_decoder"]
        pipe(PROMPT, steps=1, seed=1, output="latents")
        pipe(PROMPT, steps=1, seed=1, output="latents")
    assert not any(engine() for engine in watch.engines)  # closed, without the garbage collector


def test_an_engine_that_is_wanted_again_stays(demo_bundle: Path, watch: Watch) -> None:
    with Pipeline.load(demo_bundle, threads=1, memory="swap") as pipe:
        embeds = pipe.encode(PROMPT)
        watch.names.clear()
        for size in ((64, 64), (128, 64)):
            pipe(prompt_embeds=embeds, guidance=1.0, steps=1, seed=1, size=size, output="latents")
    assert watch.names == ["step"]


def test_a_base_and_its_refiner_take_turns(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text encoder that both have is opened once for both."""
    bundle = models.bundle("epsilon", "refiner")
    settings: dict[str, Any] = {"steps": 5, "seed": 1, "size": (64, 64), "refiner_start": 0.6}
    with Pipeline.load(bundle, threads=1, memory="resident") as pipe:
        wanted = pipe("a star", **settings)
    watch = Watch(monkeypatch)
    with Pipeline.load(bundle, threads=1, memory="swap") as pipe:
        got = pipe("a star", **settings)
    np.testing.assert_array_equal(got.latents, wanted.latents)
    assert watch.names == ["text_encoder", "text_encoder_2", "step", "step", "vae_decoder"]


def test_a_turn_that_fails_leaves_the_pipeline_as_it_was(demo_bundle: Path, watch: Watch) -> None:
    with Pipeline.load(demo_bundle, threads=1, memory="swap") as pipe:
        wanted = pipe(PROMPT, steps=2, seed=1).latents
        for watch.fail in TEXT_TO_IMAGE:
            with pytest.raises(OutOfMemory, match=f"no room for {watch.fail}"):
                pipe(f"{PROMPT}, no {watch.fail}", steps=2, seed=1)
        watch.fail = None
        np.testing.assert_array_equal(pipe(PROMPT, steps=2, seed=1).latents, wanted)

        def stop(_: Any) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pipe(PROMPT, steps=2, seed=1, callback=stop)
        np.testing.assert_array_equal(pipe(PROMPT, steps=2, seed=1).latents, wanted)


def test_every_shape_can_be_warmed_up(demo_bundle: Path, watch: Watch) -> None:
    with Pipeline.load(demo_bundle, threads=1, memory="swap") as pipe:
        assert len(pipe.warm_up([(64, 64), (128, 128)])) == 2
        assert pipe(PROMPT, steps=1, seed=1).images
    assert set(watch.names) == {*TEXT_TO_IMAGE, "vae_encoder"}


PEAK = """
import sys
from pathlib import Path
from sdxl_trt.runtime import Pipeline

with Pipeline.load(sys.argv[1], threads=1, memory=sys.argv[2]) as pipe:
    pipe("a red circle", steps=2, seed=1)
    status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def test_the_processors_memory_has_a_lower_peak(demo_bundle: Path) -> None:
    def peak(policy: str) -> int:
        command = [sys.executable, "-c", PEAK, str(demo_bundle), policy]
        return 1024 * int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    resident, swap = peak("resident"), peak("swap")
    print(f"peak: resident {resident / 1e6:.1f} MB, swap {swap / 1e6:.1f} MB; required: 5 MB less")
    assert swap < resident - 5_000_000


class OnCuda:
    """Pipelines of onnxruntime's CUDA flavour over the recording driver."""

    def __init__(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bundle, self.driver = bundle, RecordingDriver(late=True)
        self.shim = Shim(self.driver)
        monkeypatch.setitem(sys.modules, "onnxruntime", self.shim)
        monkeypatch.setattr(pipeline, "open_device", self._open)

    def _open(self, _: str) -> CudaDevice:
        self.device = CudaDevice(driver=self.driver)
        return self.device

    def load(self, policy: str) -> Pipeline:
        return Pipeline.load(self.bundle, threads=1, device="cuda", memory=policy)


@pytest.fixture
def on_cuda(cuda_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> OnCuda:
    return OnCuda(cuda_bundle, monkeypatch)


def test_on_a_gpu_nothing_leaks_over_many_turns(on_cuda: OnCuda, watch: Watch) -> None:
    with on_cuda.load("swap") as pipe:
        wanted = pipe(PROMPT, steps=2, seed=1, size=(64, 64)).latents
        before, allocated = on_cuda.driver.live, on_cuda.device.memory().allocated
        for number in range(5):  # of four turns each
            pipe(f"{PROMPT}, {number}", steps=2, seed=1, size=(64, 64))
            assert (on_cuda.driver.live, on_cuda.device.memory().allocated) == (before, allocated)
        assert watch.names == 6 * TEXT_TO_IMAGE
        np.testing.assert_array_equal(pipe(PROMPT, steps=2, seed=1, size=(64, 64)).latents, wanted)
        numbers = [number for number, _ in on_cuda.shim.runs]
        assert len(on_cuda.shim.released) >= 5 * 4  # recordings of engines that went
        assert numbers.count("1") > 6  # each engine counts its own, from the beginning
    assert on_cuda.driver.contexts == 0
    assert not +on_cuda.driver.live


def test_on_a_gpu_the_peak_is_the_largest_engines(on_cuda: OnCuda) -> None:
    def peak(policy: str) -> int:
        with on_cuda.load(policy) as pipe:
            pipe(PROMPT, steps=2, seed=1, size=(64, 64))
            return on_cuda.device.memory().peak

    resident, swap = peak("resident"), peak("swap")
    weights = {
        name: sum(blob.bytes for blob in entry.weights) for name, entry in on_cuda.load("swap").target.engines.items()
    }
    print(f"resident {resident:,} swap {swap:,} of weights {weights}")
    assert resident > sum(weights.values()) - weights["vae_encoder"]
    assert max(weights.values()) < swap < max(weights.values()) + (resident - sum(weights.values())) + 2**22


def test_a_fleet_swaps_too(demo_bundle: Path) -> None:
    with Pipeline.load(demo_bundle, threads=1) as pipe:
        wanted = pipe(PROMPT, steps=2, seed=1).latents
    with Fleet.load(demo_bundle, ["cpu"], threads=1, memory="swap") as fleet:
        assert fleet.memory.policy == "swap"
        np.testing.assert_array_equal(fleet(PROMPT, steps=2, seed=1).latents, wanted)
