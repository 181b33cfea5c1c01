"""TensorRT's engines that take turns, and those whose weights are streamed: which calls are made, and in which order.

The library records its calls; its properties exist in the real ones (test_trt_api.py); a GPU is in none of this.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recording_driver import RecordingDriver
from recording_tensorrt import PASSING, SCRATCH, WEIGHTS
from trt_bench import Bench, values

from sdxl_trt.bundle import checked
from sdxl_trt.errors import BundleError, OutOfMemory, RunError
from sdxl_trt.runtime import loading
from sdxl_trt.runtime.cuda.arenas import SPARE
from sdxl_trt.runtime.engine import Caller, Engine
from sdxl_trt.runtime.policy import Policy
from sdxl_trt.runtime.swapping import SwappedEngine, Turns
from sdxl_trt.runtime.trt import LIBRARIES

STREAMABLE = 10_000


@pytest.fixture(params=sorted(LIBRARIES))
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Bench(tmp_path / "bundle", request.param, monkeypatch)


def take_turns(bench: Bench, *openers: Callable[[], Engine]) -> list[Caller]:
    """Callers of two engines, or of what these open; one is open at a time."""
    turns = Turns(bench.device, lambda entry: (bench.store.path(entry.file),))
    return [
        Caller(SwappedEngine(bench.target().engines["small"], "small", turns, opener), bench.device)
        for opener in openers or (bench.open, bench.open)
    ]


@pytest.fixture
def rtx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Bench(tmp_path / "bundle", "tensorrt-rtx", monkeypatch)


def call(bench: Bench, caller: Caller, slots: int = 2) -> list[str]:
    """Run; returns what was called of the library."""
    bench.trt.calls.clear()
    inputs = values(slots)
    np.testing.assert_array_equal(caller({"slots": slots}, **inputs)["y"], 2 * inputs["x"])
    return [name for name in bench.trt.calls if name not in ("get_engine_validity", "compile")]


def test_an_engine_is_freed_before_the_next_is_read_and_recorded_again(bench: Bench) -> None:
    first, second = take_turns(bench)
    loaded = ["deserialize_cuda_engine", "create_execution_context", *2 * ["execute_async_v3"]]
    assert call(bench, first) == loaded
    assert call(bench, first) == []  # a recorded run is launched
    for turn, caller in enumerate((second, first, second)):
        assert call(bench, caller) == ["~ICudaEngine", *loaded]
        assert bench.driver.calls["cuStreamBeginCapture"] == turn + 2
    assert bench.driver.live["executable"] == 1


def test_twenty_turns_leave_what_one_left(bench: Bench) -> None:
    callers = take_turns(bench)
    for caller in callers:
        call(bench, caller)
    before, use = bench.driver.live, bench.device.memory()
    for _ in range(10):
        for caller in callers:
            call(bench, caller)
            assert bench.driver.live == before
    after = bench.device.memory()
    assert (after.allocated, after.peak) == (use.allocated, use.peak)
    assert after.peak < 2 * WEIGHTS + SCRATCH  # never two at once


def test_parked_engines_keep_all_but_their_weights(rtx: Bench) -> None:
    first, second = take_turns(rtx, rtx.parked(), rtx.parked())
    bound = ["create_execution_context", *2 * ["execute_async_v3"]]
    loaded = ["load_weights_async", *bound]
    assert call(rtx, first) == ["deserialize_cuda_engine", *loaded]
    assert call(rtx, second) == ["unload_weights", "deserialize_cuda_engine", *loaded]
    compiled = rtx.trt.calls.count("compile")
    for caller in (first, second, first):
        assert call(rtx, caller) == ["unload_weights", *loaded]  # recorded again: addresses may have changed
        assert "compile" not in rtx.trt.calls
    assert compiled == 0  # the first engine's kernels were in the file
    before, use = rtx.driver.live, rtx.device.memory()
    for caller in 10 * [second, first]:
        call(rtx, caller)
    after = rtx.device.memory()
    assert (rtx.driver.live, after.allocated, after.peak) == (before, use.allocated, use.peak)
    assert after.peak < 2 * WEIGHTS + SCRATCH  # never the weights of both


def test_parked_weights_that_do_not_come(rtx: Bench) -> None:
    first, second = take_turns(rtx, rtx.parked(), rtx.parked())
    call(rtx, first)
    rtx.trt.say["load_weights_async"], rtx.trt.message = False, "Error Code 2: OutOfMemory"
    for caller in (second, first):
        with pytest.raises(OutOfMemory, match="the engine small cannot load its weights"):
            call(rtx, caller)
    del rtx.trt.say["load_weights_async"]
    call(rtx, first)
    call(rtx, second)


def test_scratch_memory_goes_with_its_engine(bench: Bench) -> None:
    first, second = take_turns(bench)
    call(bench, first)
    block = bench.device.arenas.block("side")[0].handle
    call(bench, second)
    assert bench.device.arenas.block("side")[0].handle != block
    assert block not in bench.driver._kinds


def test_a_plan_is_hashed_whole_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later readings hash the chunks that are handed out."""
    wholes = []
    check = checked.CheckedBlob._check
    monkeypatch.setattr(checked.CheckedBlob, "_check", lambda *a: wholes.append(1) or check(*a))
    first, second = take_turns(bench)
    for caller in (first, second, first):
        call(bench, caller)
    assert len(wholes) == 1
    path = bench.store.path(bench.blob)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert hashlib.sha256(path.read_bytes()).hexdigest() != bench.blob.sha256
    with pytest.raises(BundleError, match="damaged or was altered"):
        call(bench, second)


def test_what_runs_is_waited_for_before_its_engine_goes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = take_turns(bench)
    call(bench, first)
    buffers, work = next(iter(first._prepared._values.values()))
    work(first._stream)  # nobody waits for it
    done = bench.driver.done
    del buffers, work
    call(bench, second)
    assert bench.driver.done > done


def weight_streaming(bench: Bench, memory: int = 2**30, **say: Any) -> None:
    """Have plans that were built for it, on a GPU of so much memory."""
    bench.trt.say["streamable_weights_size"] = STREAMABLE
    bench.trt.say |= say
    bench.driver = bench.trt.driver = RecordingDriver(late=True, memory=memory)
    bench.new_process()


def budgets(bench: Bench) -> list[int]:
    return [int(name.split()[-1]) for name in bench.trt.calls if name.startswith("weight_streaming_budget_v2")]


def test_streamed_weights_get_the_memory_that_is_left(bench: Bench) -> None:
    for left in (0, 4000, STREAMABLE, 10 * STREAMABLE):
        weight_streaming(bench, SPARE + SCRATCH + PASSING + left)
        bench.trt.calls.clear()
        allocated = bench.device.memory().allocated
        engine = bench.open(streams=True)
        budget = min(left, STREAMABLE)
        assert budgets(bench) == [0, budget]  # first what it works in when it streams, then the rest
        assert bench.device.memory().allocated == allocated + WEIGHTS - STREAMABLE + budget
        engine.close()


def test_a_streamed_engine_is_not_recorded(bench: Bench) -> None:
    weight_streaming(bench)
    caller = Caller(bench.open(streams=True), bench.device)
    for _ in range(3):
        call(bench, caller)
    assert bench.driver.calls["cuStreamBeginCapture"] == 0


def test_an_engine_built_for_streaming_may_stay_whole(bench: Bench) -> None:
    weight_streaming(bench)
    caller = Caller(bench.open(), bench.device)
    assert budgets(bench) == [STREAMABLE]
    call(bench, caller)
    assert bench.driver.calls["cuStreamBeginCapture"] == 1


def test_a_budget_below_what_is_needed_is_refused(bench: Bench) -> None:
    weight_streaming(bench, SPARE + SCRATCH + PASSING - 1)
    with pytest.raises(OutOfMemory, match="too little memory to stream the weights of small") as caught:
        bench.open(streams=True)
    assert "at least 0.54 GB, beside all weights" in caught.value.expected
    assert caught.value.fix


def test_a_budget_that_the_library_refuses(bench: Bench) -> None:
    weight_streaming(bench, weight_streaming_budget_v2=False)
    bench.trt.message = "the budget is no budget"
    with pytest.raises(RunError, match="small refuses 10,000 bytes for its weights") as caught:
        bench.open()
    assert caught.value.got == "the budget is no budget"


@pytest.mark.parametrize(
    ("flavour", "policy", "name", "calls"),
    [
        ("tensorrt", "swap", "step", ["deserialize_cuda_engine", "~ICudaEngine"] * 2),
        ("tensorrt-rtx", "swap", "step", ["deserialize_cuda_engine", *["load_weights_async", "unload_weights"] * 2]),
        ("tensorrt-rtx", "stream", "vae", ["deserialize_cuda_engine", *["load_weights_async", "unload_weights"] * 2]),
        ("tensorrt-rtx", "stream", "step", ["deserialize_cuda_engine", "~ICudaEngine"] * 2),
    ],
)
def test_how_engines_of_a_bundle_come_and_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flavour: str, policy: str, name: str, calls: list[str]
) -> None:
    """Those that were built for streaming are not parked: their weights lie in host memory."""
    bench = Bench(tmp_path / "bundle", flavour, monkeypatch)
    weight_streaming(bench)
    source = loading._Source(
        store=bench.store,
        target=bench.target(),
        threads=None,
        device=bench.device,
        memory=Policy(policy=policy, why="asked for"),
    )
    streams = policy == "stream" and name == "step"
    opener = source.opener(dataclasses.replace(bench.target().engines["small"], streams=streams), name)
    for _ in range(2):
        engine = opener()
        assert engine.streams == streams  # type: ignore[attr-defined]
        engine.close()
    kept = {"get_engine_validity", *(call for call in bench.trt.calls if call.startswith("weight_streaming"))}
    assert [call for call in bench.trt.calls if call not in kept] == calls
