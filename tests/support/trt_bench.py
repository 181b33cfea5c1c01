"""A bundle with one small engine of either TensorRT, a recorded device, and the library over it."""

from __future__ import annotations

import dataclasses
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recording_driver import RecordingDriver
from recording_tensorrt import FakeTensorRT, make_plan

from sdxl_trt.bundle import BlobStore, EngineEntry, Target
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.trt import LIBRARIES, Parked, ParkingEngine, TrtEngine
from sdxl_trt.spec import Profile, TensorSpec

VERSION = "1.2.3.4"
INPUTS = (
    TensorSpec(name="x", dtype="float32", shape=("slots", 3)),
    TensorSpec(name="half", dtype="float16", shape=("slots", 2)),
)
OUTPUTS = (
    TensorSpec(name="y", dtype="float32", shape=("slots", 3)),
    TensorSpec(name="z", dtype="float16", shape=("slots", 2)),
)
TENSORS: dict[str, Any] = {
    "x": {"dtype": "FLOAT", "shape": [-1, 3], "profile": [[1, 3], [2, 3], [8, 3]]},
    "half": {"dtype": "HALF", "shape": [-1, 2], "profile": [[1, 2], [2, 2], [8, 2]]},
    "y": {"dtype": "FLOAT", "shape": [-1, 3]},
    "z": {"dtype": "HALF", "shape": [-1, 2]},
}


class Bench:
    """A bundle with one engine, a device, and the library."""

    def __init__(self, folder: Path, flavour: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.driver = RecordingDriver(late=True)
        self.trt = FakeTensorRT(LIBRARIES[flavour].module, VERSION, self.driver)
        monkeypatch.setitem(sys.modules, LIBRARIES[flavour].module, self.trt)
        self.store, self.flavour = BlobStore(folder), flavour
        self.new_process()
        self.write(make_plan(TENSORS))

    def new_process(self) -> None:
        self.device = CudaDevice(driver=self.driver)

    def write(self, plan: bytes) -> None:
        with self.store.lock():
            self.blob = self.store.put_bytes(plan)

    def target(self, **changes: Any) -> Target:
        entry = EngineEntry(key="0" * 64, file=self.blob, inputs=INPUTS, outputs=OUTPUTS)
        target = Target(
            name="gpu",
            flavour=self.flavour,
            flavour_version=VERSION,
            sms=(89,),
            processor=platform.machine(),
            precision="float16",
            profile=Profile.make(smallest=(64, 64), best=(64, 64), largest=(64, 64), batch=1),
            accepted=False,
            engines={"small": entry},
        )
        return dataclasses.replace(target, **changes)

    def open(self, *, streams: bool = False, **changes: Any) -> TrtEngine:
        target = self.target(**changes)
        entry = target.engines["small"]
        return TrtEngine(self.store, target, entry, "small", self.device, "side", streams=streams)

    def parked(self) -> Parked:
        """What opens an engine whose weights come and go."""
        target = self.target()
        arguments = (self.store, target, target.engines["small"], "small", self.device, "side")
        return Parked(lambda: ParkingEngine(*arguments))


def values(slots: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(slots)
    return {
        "x": rng.standard_normal((slots, 3), np.float32),
        "half": rng.standard_normal((slots, 2), np.float32).astype(np.float16),
    }
