"""Whole models as they are exported, built for a GPU that is not here."""

from __future__ import annotations

from pathlib import Path

import pytest
from models import HALF, Models

from sdxl_trt.bundle import BlobStore
from sdxl_trt.engines.build import build
from sdxl_trt.engines.targets import resolve_targets
from sdxl_trt.exported import read_index
from sdxl_trt.spec import Profile, model_graphs

PROFILE = Profile.make(smallest=(64, 64), best=(128, 128), largest=(192, 256), batch=4)


@pytest.mark.parametrize("name", HALF)
def test_every_graph_becomes_an_rtx_plan(models: Models, name: str, tmp_path: Path) -> None:
    export = models.export(name)
    (target,) = build(export, tmp_path, resolve_targets(["rtx3060"]), profile=PROFILE).targets
    assert tuple(target.engines) == model_graphs(read_index(export).model)
    assert (target.flavour, target.sms, target.precision, target.accepted) == ("tensorrt-rtx", (86,), "float16", False)
    for graph, engine in target.engines.items():
        BlobStore(tmp_path).check(engine.file, graph)
        print(f"{name} {graph}: {engine.file.bytes} bytes in {len(engine.file.parts)} parts")
        assert engine.file.bytes > 100_000
        assert engine.weights == ()


def test_a_step_for_weight_streaming_is_another_engine(models: Models, tmp_path: Path) -> None:
    """And the others are kept."""
    export, profile = models.export("demo"), Profile.make(smallest=(64, 64), best=(64, 64), largest=(64, 64), batch=1)
    (plain,) = build(export, tmp_path, resolve_targets(["rtx3060"]), profile=profile).targets
    requests = resolve_targets(["rtx3060"], weight_streaming=True)
    (streaming,) = build(export, tmp_path, requests, profile=profile).targets
    assert not any(engine.streams for engine in plain.engines.values())
    assert {name for name, engine in streaming.engines.items() if engine != plain.engines[name]} == {"step"}
    assert streaming.engines["step"].streams
    BlobStore(tmp_path).check(streaming.engines["step"].file, "step")
