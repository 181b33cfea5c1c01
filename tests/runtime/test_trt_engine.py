"""TensorRT engines of both flavours, over libraries that record their calls: what is checked, and in which order.

The libraries' enumerations are real; that the real calls exist is in test_trt_api.py; a GPU is in none of them.
"""

from __future__ import annotations

import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorrt_rtx as real
from recording_tensorrt import SCRATCH, WEIGHTS, make_plan
from trt_bench import TENSORS, Bench, values

from sdxl_trt.bundle import BlobStore
from sdxl_trt.bundle.checked import CHUNK
from sdxl_trt.errors import (
    BundleError,
    FlavourUnavailable,
    NoTargetForHost,
    OutOfMemory,
    RunError,
    UnsupportedSize,
)
from sdxl_trt.paths import cache_folder
from sdxl_trt.runtime.engine import SHAPES, Caller, allocate, record
from sdxl_trt.runtime.trt import LIBRARIES
from sdxl_trt.scratch import known_scratch, note_scratch


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sdxl-trt" / "kernels"


@pytest.fixture(params=sorted(LIBRARIES))
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path / "bundle", request.param, monkeypatch)


@pytest.fixture
def rtx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path / "bundle", "tensorrt-rtx", monkeypatch)


def test_an_engine_runs_recorded_at_any_shape_it_has(bench: Bench) -> None:
    caller = Caller(bench.open(), bench.device)
    for slots in (1, 8, 3, 3, 1):
        inputs = values(slots)
        outputs = caller({"slots": slots}, **inputs)
        np.testing.assert_array_equal(outputs["y"], 2 * inputs["x"])
        np.testing.assert_array_equal(outputs["z"], 2 * inputs["half"])
    assert bench.driver.calls["cuStreamBeginCapture"] == 3  # once for each shape
    assert bench.trt.calls.count("create_execution_context") == 3  # one context for each recording
    assert bench.trt.calls.count("execute_async_v3") == 2 * 3  # to prepare, and to be recorded: then never again


def test_shapes_kept_are_bounded(bench: Bench) -> None:
    caller = Caller(bench.open(), bench.device)
    for slots in (1, 2, 3, 4, 5, 6, 7, 8, 8, 7, 6, 5):
        caller({"slots": slots}, **values(slots))
    assert bench.driver.live["executable"] <= SHAPES + 1  # one that was dropped and is not yet released
    assert bench.trt.calls.count("create_execution_context") == 8
    caller({"slots": 1}, **values(1))
    assert bench.trt.calls.count("create_execution_context") == 9


def test_the_order_of_calls(rtx: Bench) -> None:
    engine = rtx.open()
    buffers = allocate(engine, rtx.device, {"slots": 2})
    rtx.driver.calls.clear()
    stream = rtx.device.stream()
    work = record(engine.bind(buffers), rtx.device, stream)
    work(stream)
    assert rtx.trt.calls == [
        "get_engine_validity",
        "deserialize_cuda_engine",
        "create_execution_context",
        "execute_async_v3",
        "compile",
        "execute_async_v3",
    ]
    assert rtx.driver.calls["cuStreamBeginCapture"] == rtx.driver.calls["cuGraphLaunch"] == 1


def test_what_cannot_be_recorded_runs_as_it_is(rtx: Bench) -> None:
    rtx.trt.say["is_stream_capturable"] = False
    caller = Caller(rtx.open(), rtx.device)
    for _ in range(3):
        np.testing.assert_array_equal(caller({"slots": 2}, **values(2))["y"], 2 * values(2)["x"])
    assert rtx.driver.calls["cuStreamBeginCapture"] == 0
    assert rtx.trt.calls.count("execute_async_v3") == 1 + 3


def test_bindings_share_one_block_of_memory(bench: Bench) -> None:
    first, second = bench.open(), bench.open()
    bindings = [engine.bind(allocate(engine, bench.device, {"slots": 2})) for engine in (first, second, first)]
    addresses = {binding._context.memory for binding in bindings}
    assert len(addresses) == 1
    assert addresses.pop()[1] == 4096


def test_weights_are_accounted_for(bench: Bench) -> None:
    before = bench.device.memory().allocated
    engines = [bench.open(), bench.open()]
    use = bench.device.memory()
    assert (use.allocated, use.peak) == (before + 2 * WEIGHTS, before + 2 * WEIGHTS)
    engines.pop().close()
    allocate(engines[0], bench.device, {"slots": 1})
    allocate(engines[0], bench.device, {"slots": 1})  # what was dropped before is released
    use = bench.device.memory()
    assert use.allocated < before + 2 * WEIGHTS <= use.peak


def test_kernels_are_kept_for_the_next_process(rtx: Bench, cache: Path) -> None:
    rtx.open().bind(allocate(rtx.open(), rtx.device, {"slots": 2}))
    assert rtx.trt.calls.count("compile") == 1
    (file,) = cache.iterdir()
    written = file.stat().st_mtime_ns
    rtx.new_process()
    engine = rtx.open()
    engine.bind(allocate(engine, rtx.device, {"slots": 2}))
    assert rtx.trt.calls.count("compile") == 1
    assert file.stat().st_mtime_ns == written
    engine.bind(allocate(engine, rtx.device, {"slots": 3}))
    assert rtx.trt.calls.count("compile") == 2
    assert file.stat().st_mtime_ns > written


@pytest.mark.parametrize("damage", ["garbage", "folder"])
def test_kernels_that_cannot_be_read_are_compiled_again(rtx: Bench, cache: Path, damage: str) -> None:
    engine = rtx.open()
    engine.bind(allocate(engine, rtx.device, {"slots": 2}))
    (file,) = cache.iterdir()
    file.unlink()
    if damage == "folder":
        file.mkdir()
    else:
        file.write_bytes(b"\0\1\2")
    rtx.new_process()
    engine = rtx.open()
    engine.bind(allocate(engine, rtx.device, {"slots": 2}))
    assert rtx.trt.calls.count("compile") == 2
    assert file.is_dir() or file.read_bytes().startswith(b"kernels")


def test_kernels_of_another_driver_engine_or_version_are_others(rtx: Bench, cache: Path) -> None:
    def names() -> set[str]:
        rtx.new_process()
        engine = rtx.open(flavour_version=rtx.trt.__version__)
        engine.bind(allocate(engine, rtx.device, {"slots": 2}))
        return {file.name for file in cache.iterdir()}

    assert len(names()) == len(names()) == 1
    rtx.driver.version = 13010
    assert len(names()) == 2
    rtx.write(make_plan(TENSORS, padding=1))
    assert len(names()) == 3
    rtx.trt.__version__ = "1.2.3.5"
    assert len(names()) == 4


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"flavour_version": "9.9.9.9"}, "built with {} 9.9.9.9, this host has 1.2.3.4"),
        ({"sms": (86,)}, "built for SM 86, this host has SM 89"),
        ({"processor": "vax"}, "built for a vax processor"),
    ],
)
def test_an_engine_for_another_host_is_not_even_read(bench: Bench, changes: dict[str, Any], got: str) -> None:
    bench.store.path(bench.blob).unlink()
    with pytest.raises(NoTargetForHost, match="cannot run on this host") as caught:
        bench.open(**changes)
    assert got.format(bench.flavour) in caught.value.got
    assert caught.value.fix
    assert bench.trt.calls == []


def test_a_damaged_plan_never_reaches_the_library(bench: Bench) -> None:
    path = bench.store.path(bench.blob)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + b"!")
    with pytest.raises(BundleError, match="the engine small is damaged or was altered"):
        bench.open()
    assert bench.trt.calls == []


def write_chunks(bench: Bench) -> None:
    """A plan in several chunks."""
    note = np.random.default_rng(0).integers(32, 127, 2**18, np.uint8).tobytes().decode()
    store = BlobStore(bench.store.bundle, average=2**14)
    with store.lock(), store.chunk_writer() as writer:
        writer.write(make_plan({**TENSORS, "x": {**TENSORS["x"], "note": note}}))
    bench.blob = writer.blob()
    assert len(bench.blob.chunks) > 5


def test_a_plan_in_chunks_runs(bench: Bench) -> None:
    write_chunks(bench)
    np.testing.assert_array_equal(
        Caller(bench.open(), bench.device)({"slots": 2}, **values(2))["y"], 2 * values(2)["x"]
    )
    parts = [*bench.blob.chunks]
    bench.store.path(parts[2]).write_bytes(b"!" * parts[2].bytes)
    with pytest.raises(BundleError, match="the engine small is damaged or was altered"):
        bench.open()
    bench.store.path(parts[2]).unlink()
    bench.trt.calls.clear()
    with pytest.raises(BundleError, match="the engine small is damaged") as caught:
        bench.open()
    assert caught.value.got == f"1 of its {len(parts)} chunks are not there"
    assert bench.trt.calls == []


def test_a_parked_plan_in_chunks_comes_and_goes(rtx: Bench) -> None:
    write_chunks(rtx)
    parked = rtx.parked()
    for _ in range(2):
        engine = parked()
        np.testing.assert_array_equal(Caller(engine, rtx.device)({"slots": 2}, **values(2))["y"], 2 * values(2)["x"])
        engine.close()


def test_a_plan_that_changes_while_it_is_read_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    big = {**TENSORS, "x": {**TENSORS["x"], "note": "x" * CHUNK}}
    bench.write(make_plan(big))
    path, runtime = bench.store.path(bench.blob), bench.trt.Runtime

    def swapped(log: Any) -> Any:
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.seek(CHUNK + 7)
            file.write(b"evil")
        return runtime(log)

    monkeypatch.setattr(bench.trt, "Runtime", swapped)
    with pytest.raises(BundleError, match="damaged or was altered") as caught:
        bench.open()
    assert caught.value.got == "content that changed after it was checked"


def test_a_plan_that_the_library_does_not_know_is_refused_with_its_reasons(rtx: Bench) -> None:
    rtx.write(b"not a plan" * 100)
    with pytest.raises(BundleError, match="cannot be used by TensorRT for RTX") as caught:
        rtx.open()
    assert caught.value.got == "MALFORMED_ENGINE"
    rtx.write(make_plan(TENSORS))
    both = real.EngineInvalidityDiagnostics
    reasons = int(both.UNSUPPORTED_CC) | int(both.OLD_CUDA_DRIVER)
    rtx.trt.say["get_engine_validity"] = real.EngineValidity.INVALID, reasons
    with pytest.raises(BundleError) as caught:
        rtx.open()
    assert caught.value.got == "UNSUPPORTED_CC, OLD_CUDA_DRIVER"
    rtx.trt.say["get_engine_validity"] = real.EngineValidity.SUBOPTIMAL, 0
    assert rtx.open().name == "small"
    assert rtx.trt.calls.count("deserialize_cuda_engine") == 1


@pytest.mark.parametrize("call", ["deserialize_cuda_engine", "create_execution_context", "execute_async_v3"])
@pytest.mark.parametrize(
    ("message", "kind"),
    [("Error Code 1: Serialization", RunError), ("Error Code 2: OutOfMemory (Requested size was ...)", OutOfMemory)],
)
def test_what_the_library_refuses_is_passed_on(bench: Bench, call: str, message: str, kind: type[Exception]) -> None:
    bench.trt.say[call], bench.trt.message = None, message

    def run() -> None:
        engine = bench.open()
        engine.bind(allocate(engine, bench.device, {"slots": 1}))

    with pytest.raises(kind, match="the engine small") as caught:
        run()
    assert message in caught.value.got  # type: ignore[attr-defined]
    assert caught.value.fix  # type: ignore[attr-defined]
    if kind is OutOfMemory:
        assert " GB free; " in caught.value.got  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "change", "got"),
    [
        ("x", {"dtype": "HALF"}, "float16 [None, 3] tensor 'x'"),
        ("y", {"shape": [-1, 4]}, "float32 [None, 4] tensor 'y'"),
        ("half", {"dtype": "FP8"}, "FP8 [None, 2] tensor 'half'"),
        ("x", {"location": "HOST"}, "float32 in host memory [None, 3] tensor 'x'"),
        ("z", {"profile": []}, "no tensor 'z'"),
    ],
)
def test_a_plan_with_other_tensors_is_refused(bench: Bench, name: str, change: dict[str, Any], got: str) -> None:
    bench.write(make_plan({**TENSORS, name: {**TENSORS[name], **change}}))
    with pytest.raises(BundleError, match="other tensors") as caught:
        bench.open()
    assert got in (caught.value.got, caught.value.got.replace("a tensor", "no tensor"))


def test_a_shape_outside_the_profile_is_refused(bench: Bench) -> None:
    engine = bench.open()
    with pytest.raises(UnsupportedSize, match="was not built for this shape") as caught:
        engine.bind(allocate(engine, bench.device, {"slots": 9}))
    assert (caught.value.got, caught.value.expected) == ("x [9, 3]", "[1, 3] to [8, 3]")


def test_a_library_that_is_not_installed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, LIBRARIES[bench.flavour].module, None)
    with pytest.raises(FlavourUnavailable) as caught:
        bench.open()
    assert f"pip install 'sdxl-trt[{bench.flavour}]'" in caught.value.fix


def test_a_closed_engine_leaves_its_plan_to_nobody(bench: Bench) -> None:
    engine = bench.open()
    plan = weakref.ref(engine.cuda_engine)
    engine.close()
    assert plan() is None


def test_scratch_memory_is_told_to_later_plans(bench: Bench) -> None:
    """In TensorRT's own figure, which takes the GPU."""
    assert known_scratch(bench.blob.sha256) is None
    bench.open()
    assert known_scratch(bench.blob.sha256) == SCRATCH
    note_scratch(bench.blob.sha256, 5)
    bench.open()
    assert known_scratch(bench.blob.sha256) == SCRATCH
    (cache_folder() / "scratch" / bench.blob.sha256).write_text("9" * 40)
    assert known_scratch(bench.blob.sha256) is None  # not ours
