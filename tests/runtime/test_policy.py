"""Which policy is taken: by name, by a GPU's free memory, or none where nothing fits; and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from models import Models
from recording_driver import RecordingDriver

from sdxl_trt.bundle import Manifest, Target, read_manifest
from sdxl_trt.errors import OutOfMemory, UnknownName, UsageError
from sdxl_trt.planning import ModelCosts, Request, components, policies
from sdxl_trt.policies import AUTO, POLICIES
from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.cuda.arenas import SPARE
from sdxl_trt.runtime.loading import load
from sdxl_trt.runtime.policy import Policy, decide
from sdxl_trt.spec import ModelSpec

NOT_RECORDED = "steps are not recorded as CUDA graphs"


@pytest.fixture
def manifest(cuda_bundle: Path) -> Manifest:
    return read_manifest(cuda_bundle)


@pytest.fixture
def target(manifest: Manifest) -> Target:
    """The demo model's, its step as heavy beside the rest as full-size SDXL's."""
    target = manifest.targets[0]
    work = target.engines["step"].work
    assert work
    return with_entries(target, "step", work=dataclasses.replace(work, weights=100_000_000))


def with_entries(target: Target, name: str, **changes: Any) -> Target:
    entry = dataclasses.replace(target.engines[name], **changes)
    return dataclasses.replace(target, engines={**target.engines, name: entry})


def gpu(engines: int) -> CudaDevice:
    """With so many bytes free for engines."""
    return CudaDevice(driver=RecordingDriver(memory=SPARE + engines))


def needed(manifest: Manifest, target: Target) -> dict[str, int]:
    """Bytes for engines at their largest shapes, by policy: sdxl_trt.planning's."""
    works = {name: entry.work for name, entry in target.engines.items() if entry.work}
    largest = Request(size=(256, 256), steps=30, batch=4)
    found = components(ModelCosts(model=manifest.model, works=works, files=0), largest)
    return {each.policy: each.least for each in policies(found, 0)}


def test_the_first_that_fits(manifest: Manifest, target: Target) -> None:
    """In the order of `POLICIES`."""
    streaming = with_entries(target, "step", streams=True)
    least = needed(manifest, target)
    print(least)
    assert least["stream"] < least["swap"] < least["resident"]
    for available, name in (
        (least["resident"], "resident"),
        (least["resident"] - 1, "swap"),
        (least["swap"], "swap"),
        (least["swap"] - 1, "stream"),
        (least["stream"], "stream"),
    ):
        policy = decide(AUTO, streaming, (manifest.model, None), gpu(available))
        assert (policy.policy, policy.free) == (name, SPARE + available)
        assert policy.peak is not None
        assert policy.peak <= available
        assert f"about {policy.peak / 1e9:.2f} of {(SPARE + available) / 1e9:.2f} GB that are free" in str(policy)
        assert (NOT_RECORDED in policy.why) == (name == "stream")


def test_where_nothing_fits(manifest: Manifest, target: Target) -> None:
    """Streaming counts only for engines that can."""
    least = needed(manifest, target)
    for which, available, named in (
        (target, least["swap"] - 1, "swap"),
        (with_entries(target, "step", streams=True), least["stream"] - 1, "stream"),
    ):
        with pytest.raises(OutOfMemory, match="there is no plan for this memory") as caught:
            decide(AUTO, which, (manifest.model, None), gpu(available))
        assert f"with the policy {named}" in caught.value.expected
        assert "smaller pictures" in caught.value.fix


def test_where_figures_are_missing_all_stay(manifest: Manifest, target: Target) -> None:
    policy = decide(AUTO, with_entries(target, "vae_decoder", work=None), (manifest.model, None), gpu(1))
    assert (policy.policy, policy.free, policy.peak) == ("resident", None, None)
    assert str(policy) == "resident (the bundle does not say what its engines take)"


def test_on_the_processor_all_stay(demo_bundle: Path) -> None:
    with Pipeline.load(demo_bundle, threads=1) as pipe:
        assert pipe.memory == Policy(policy="resident", why="on the processor")


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_that_is_asked_for_is_taken(manifest: Manifest, target: Target, name: str) -> None:
    """Whatever the estimates say."""
    policy = decide(name, with_entries(target, "step", streams=True), (manifest.model, None), gpu(1))
    assert policy.policy == name
    assert policy.why.startswith("asked for")
    assert (policy.swaps, policy.streams) == (name != "resident", name == "stream")
    assert (NOT_RECORDED in policy.why) == policy.streams


def test_an_unknown_policy_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="unknown memory policy 'swop': did you mean swap") as caught:
        load(tmp_path / "nothing", memory="swop")
    assert caught.value.expected == "auto, resident, swap, stream"


@pytest.mark.parametrize(
    ("flavour", "got"),
    [("onnxruntime", "onnxruntime has no weight streaming"), ("tensorrt", "built without weight streaming")],
)
def test_weights_that_cannot_be_streamed(manifest: Manifest, target: Target, flavour: str, got: str) -> None:
    other = dataclasses.replace(target, flavour=flavour)
    with pytest.raises(UsageError, match="cannot be streamed") as caught:
        decide("stream", other, (manifest.model, None), gpu(2**30))
    assert got in caught.value.got
    assert "--memory swap" in caught.value.fix


def test_a_refiners_step_must_stream_too(manifest: Manifest, target: Target) -> None:
    both = dataclasses.replace(with_entries(target, "step", streams=True), refiner=dict(target.engines))
    assert decide("stream", both, (manifest.model, None), None).streams  # the refiner is not opened
    with pytest.raises(UsageError, match="cannot be streamed"):
        decide("stream", both, (manifest.model, manifest.model), None)


def test_a_refiner_counts_where_it_is_opened(models: Models) -> None:
    """Its step stays beside the base's, or comes after it."""
    manifest = read_manifest(models.bundle("epsilon", "refiner"))
    assert manifest.refiner
    target, both = manifest.targets[0], (manifest.model, manifest.refiner.model)

    def peak(available: int, opened: tuple[ModelSpec, ModelSpec | None]) -> tuple[str, int]:
        policy = decide(AUTO, target, opened, gpu(available))
        assert policy.peak is not None
        return policy.policy, policy.peak

    (name, alone), (also, together) = (peak(2**30, opened) for opened in ((both[0], None), both))
    assert (name, also) == ("resident", "resident")
    assert together > alone
    assert peak(together - 1, both)[0] == "swap"
