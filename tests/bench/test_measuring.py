"""What is timed: the pipeline's own stages over the demo bundle, on the host and on a recorded GPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recording_driver import RecordingDriver
from shim_onnxruntime import Shim

from sdxl_trt.bench.energy import EnergyMeter
from sdxl_trt.bench.engines import engines_at, run_alone, run_engines
from sdxl_trt.bench.ours import measure
from sdxl_trt.bench.stages import Call, Stages
from sdxl_trt.errors import UsageError
from sdxl_trt.progress import silent
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.device import HostDevice
from sdxl_trt.runtime.loading import Loaded, load
from sdxl_trt.runtime.request import Request

STEPS = 3
REQUEST = Request(prompt="a red circle", steps=STEPS, size=(64, 72), seed=(0, 1))


@pytest.fixture(scope="module")
def loaded(demo_bundle: Path) -> Loaded:
    return load(demo_bundle, threads=1)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> tuple[CudaDevice, RecordingDriver]:
    driver = RecordingDriver(late=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", Shim(driver))
    return CudaDevice(driver=driver), driver


def test_stages_of_the_host(loaded: Loaded) -> None:
    stages = Stages(loaded, HostDevice(), REQUEST)
    for _ in range(2):
        call = stages.run()
        assert stages.evaluations == STEPS
        assert len(call.steps) == len(call.host) == STEPS - 1
        assert all(0 < host < step for host, step in zip(call.host, call.steps, strict=True))
        assert sum(call.steps) < call.loop < call.total
        assert min(call.text, call.decode) > 0


def test_stages_of_a_gpu_add_neither_waits_nor_allocations(
    cuda_bundle: Path, gpu: tuple[CudaDevice, RecordingDriver]
) -> None:
    """Beside what the pipeline itself does: one event for each step, and four for the stages."""
    device, driver = gpu
    stages = Stages(load(cuda_bundle, threads=1, device=device), device, REQUEST)
    stages.run()
    live, before = driver.live, driver.calls.copy()
    call = stages.run()
    calls = driver.calls - before
    print(dict(calls))
    assert len(call.steps) == len(call.host) == STEPS - 1
    assert all(step > 0 for step in (*call.steps, call.text, call.loop, call.decode))
    assert driver.live == live
    assert calls["cuEventElapsedTime"] == STEPS + 3
    for name in calls.keys() - {"cuEventElapsedTime"}:
        assert "Create" not in name
        assert "Alloc" not in name
        assert "Synchronize" not in name
    del stages
    device.close()


def test_engines_by_themselves(loaded: Loaded) -> None:
    """At the shapes of the request: two rows for each picture with guidance, one without."""
    device = HostDevice()
    for guidance, rows in ((5.0, 4), (1.0, 2)):
        settings = Stages(loaded, device, replace(REQUEST, guidance=guidance)).settings
        axes = {engine.name: axes for engine, axes in engines_at(loaded, device, settings)}
        assert list(axes) == ["text_encoder", "text_encoder_2", "step", "vae_decoder"]
        assert axes["step"] == {"rows": rows, "slots": 2, "tokens": 77, "height": 9, "width": 8}
        assert axes["vae_decoder"] == {"slots": 1, "height": 9, "width": 8}
    tiled = Stages(loaded, device, replace(REQUEST, vae_tiling="on", vae_tile=64)).settings
    assert list(engines_at(loaded, device, tiled))[-1][1] == {"slots": 1, "height": 8, "width": 8}
    found = run_engines(loaded, device, settings, 3, names={"step"})
    assert [runs.name for runs in found] == ["step"]
    assert len(found[0].seconds) == 3
    assert min(found[0].seconds) > 0


def test_a_gpus_engines_run_at_the_bundles_slots(cuda_bundle: Path, gpu: tuple[CudaDevice, RecordingDriver]) -> None:
    device, driver = gpu
    loaded = load(cuda_bundle, threads=1, device=device)
    settings = Stages(loaded, device, replace(REQUEST, seed=(0, 1, 2))).settings
    axes = {engine.name: axes for engine, axes in engines_at(loaded, device, settings)}["step"]
    assert (axes["rows"], axes["slots"]) == (8, 4)  # six rows, filled up
    before = driver.calls.copy()
    assert len(run_alone(loaded.decoder, device, {"slots": 1, "height": 9, "width": 8}, 5)) == 5
    assert (driver.calls - before)["cuEventElapsedTime"] == 5
    device.close()


def test_counts_are_those_of_the_manifest(loaded: Loaded) -> None:
    device = HostDevice()
    settings = Stages(loaded, device, REQUEST).settings
    work = loaded.target.engines["step"].work
    assert work is not None
    (runs,) = run_engines(loaded, device, settings, 2, names={"step"})
    assert (runs.operations, runs.bytes) == (work.operations(runs.axes), work.bytes(runs.axes))
    assert runs.tflops is not None
    assert runs.tflops > 0
    without = replace(loaded.target, engines={"step": replace(loaded.target.engines["step"], work=None)})
    (runs,) = run_engines(replace(loaded, target=without), device, settings, 2, names={"step"})
    assert (runs.operations, runs.bytes, runs.tflops, runs.intensity) == (None, None, None, None)


def test_all_figures_of_two_batches(loaded: Loaded) -> None:
    told: list[tuple[str, int, int]] = []
    found = list(
        measure(
            loaded, HostDevice(), REQUEST, (1, 2), repeats=2, progress=lambda *stage: told.append(stage)
        )
    )  # fmt: skip
    for batch, measured in zip((1, 2), found, strict=True):
        figures = {figure.what: figure for figure in measured.figures}
        counts = {what: len(figure.samples) for what, figure in figures.items()}
        assert counts == {
            "first call": 1, "text": 2, "loop": 2, "VAE decode": 2, "whole picture": 2, "step": 2 * (STEPS - 1),
            "host per step": 2 * (STEPS - 1), "throughput": 2, "energy per picture": 0, "host memory, peak": 1,
            "GPU memory allocated, peak": 0, "GPU memory used by all": 0, "loop ÷ its engine alone": 2,
        }  # fmt: skip
        assert all(figure.batch == batch and bool(figure.reason) == (not figure.samples) for figure in figures.values())
        rates = np.multiply(figures["throughput"].samples, figures["whole picture"].samples)
        np.testing.assert_allclose(rates, 1000 * batch)
    assert [runs.name for runs in found[0].engines] == ["text_encoder", "text_encoder_2", "step", "vae_decoder"]
    assert [runs.name for runs in found[1].engines] == ["step"]
    assert told[-1] == ("sdxl-trt, batch 2", 3, 3)


def test_one_step_has_no_step_to_the_next(loaded: Loaded) -> None:
    (measured,) = measure(loaded, HostDevice(), replace(REQUEST, steps=1), (1,), repeats=1, progress=silent)
    figures = {figure.what: figure for figure in measured.figures}
    assert figures["step"].samples == ()
    assert "one evaluation" in figures["step"].reason


def test_a_request_that_cannot_be_done(loaded: Loaded) -> None:
    with pytest.raises(UsageError, match="not built for this size"):
        Stages(loaded, HostDevice(), replace(REQUEST, size=(1024, 1024)))


def test_a_call_is_the_sum_of_its_stages() -> None:
    assert Call(text=1, loop=2, decode=4, steps=(), host=()).total == 7


class Nvml:
    """NVML's functions that are used, over a meter that goes up."""

    def __init__(self, *, counts: bool = True) -> None:
        self.counts, self.millijoules, self.asked = counts, 5_000, ""

    def init_v2(self) -> None:
        pass

    def device_get_handle_by_pci_bus_id_v2(self, pci_bus_id: str) -> int:
        self.asked = pci_bus_id
        return 7

    def device_get_total_energy_consumption(self, handle: int) -> int:
        assert handle == 7
        if not self.counts:
            raise RuntimeError("Not Supported")
        self.millijoules += 500
        return self.millijoules


def test_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    device, nvml = CudaDevice(driver=RecordingDriver()), Nvml()
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", nvml)  # type: ignore[arg-type]
    meter = EnergyMeter(device)
    assert (meter.read(), meter.read(), meter.reason) == (6.0, 6.5, "")
    assert nvml.asked == "0000:01:00.0"
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", Nvml(counts=False))  # type: ignore[arg-type]
    meter = EnergyMeter(device)
    assert (meter.read(), meter.reason) == (None, "NVML: Not Supported")
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", None)
    assert "cuda.bindings.nvml" in EnergyMeter(device).reason
    assert "processor" in EnergyMeter(HostDevice()).reason


def test_nvml_has_these_functions() -> None:
    """API-checked: they exist in cuda-python. Without a driver they cannot be called."""
    from cuda.bindings import nvml

    for name in (name for name in vars(Nvml) if not name.startswith("_")):
        assert callable(getattr(nvml, name))
