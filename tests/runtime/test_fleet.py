"""A request on several devices: what comes back, and that no process is left, whatever happens to it."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdxl_trt.errors import BundleError, NoStepLeft, PromptTooLong, RunError, SdxlTrtError, UnknownName, UsageError
from sdxl_trt.runtime import Fleet, Pipeline, Request
from sdxl_trt.runtime.fleet import fleet as fleet_module
from sdxl_trt.runtime.fleet.process import gather
from sdxl_trt.runtime.steps import Step

PROMPT = "a large red circle on a white background"
TWO = ("cpu", "cpu")


@pytest.fixture(scope="module")
def one(demo_bundle: Path) -> Iterator[Pipeline]:
    with Pipeline.load(demo_bundle, threads=1) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def fleet(demo_bundle: Path) -> Iterator[Fleet]:
    with Fleet.load(demo_bundle, TWO, threads=1) as loaded:
        yield loaded


def processes(fleet: Fleet) -> list[int]:
    return [worker._process.pid for worker in fleet._workers]


def gone(pids: list[int], seconds: float = 20.0) -> bool:
    """No such process is left (or it is dead and its parent has not asked for its status)."""
    deadline = time.monotonic() + seconds
    while any(running(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("seeds", [(7,), (5, 6, 7), range(4)], ids=len)
def test_pictures_are_those_of_one_device_to_the_bit(one: Pipeline, fleet: Fleet, seeds: Any) -> None:
    settings: dict[str, Any] = {"seed": seeds, "steps": 3, "sampler": "euler_a"}
    wanted, got = one(PROMPT, **settings), fleet(PROMPT, **settings)
    assert got.seeds == got.settings.seeds == tuple(seeds)
    assert got.settings == wanted.settings
    np.testing.assert_array_equal(got.latents, wanted.latents)
    for mine, theirs in zip(got.images, wanted.images, strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))


def test_what_each_picture_starts_from(one: Pipeline, fleet: Fleet) -> None:
    """Noise and latents of one's own go with their pictures; a picture and its mask go to all."""
    noise = np.random.default_rng(0).standard_normal((3, 4, 16, 16), np.float32)
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (128, 128, 3), np.uint8))
    mask = np.zeros((128, 128), np.uint8)
    mask[32:96, 32:96] = 255
    asked: list[tuple[dict[str, Any], Any]] = [
        ({"output": "latents"}, noise),
        ({"image": noise, "strength": 0.6}, None),
        ({"image": noise[0], "strength": 0.6}, None),
        ({"image": picture, "mask": mask, "mask_padding": 8, "strength": 0.8}, None),
    ]
    for settings, own in asked:
        output = settings.pop("output", "image")
        request = Request(prompt=PROMPT, seed=(1, 2, 3), steps=4, **settings)
        got, wanted = (each.run(request, noise=own, output=output) for each in (fleet, one))
        np.testing.assert_array_equal(got.latents, wanted.latents)
        assert len(got.images) == len(wanted.images)
        if got.settings.given and got.settings.given.latents is not None:
            again = fleet(PROMPT, seed=got.seeds, steps=4, image=got.settings.given.latents, strength=0.6)
            np.testing.assert_array_equal(again.latents, wanted.latents)


def test_progress_and_steps_come_back(one: Pipeline, fleet: Fleet) -> None:
    def tell(pictures: Any) -> tuple[list[Any], dict[Any, Any], Any]:
        told = list[tuple[str, int, int]]()
        steps = dict[tuple[int, int], Any]()

        def callback(step: Step) -> None:
            steps[step.picture, step.done] = step.latents(), step.estimate(), step.preview()
            assert step.total == 3
            assert step.seconds_left >= 0

        result = pictures(PROMPT, seed=(1, 2, 3), steps=3, progress=lambda *e: told.append(e), callback=callback)
        return told, steps, result.latents

    (told, steps, latents), (_, wanted, _) = tell(fleet), tell(one)
    assert sorted(steps) == sorted(wanted) == [(picture, done) for picture in range(3) for done in (1, 2, 3)]
    for key, values in steps.items():
        for got, expected in zip(values, wanted[key], strict=True):
            np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal([steps[picture, 3][0] for picture in range(3)], latents)
    for stage, total in (("denoising", 9), ("decoding", 3)):
        done = [each[1:] for each in told if each[0] == stage]
        assert done == sorted(done)
        assert done[-1] == (total, total)
        assert {each[1] for each in done} == {total}


def test_learned_words_and_warming_up_reach_all(one: Pipeline, fleet: Fleet) -> None:
    seconds = fleet.warm_up([(64, 72)], [1, 2])
    assert list(seconds) == [((64, 72), 1), ((64, 72), 2)]
    assert all(each > 0 for each in seconds.values())
    with pytest.raises(UsageError) as theirs:
        one.load_textual_inversion("absent.safetensors")
    with pytest.raises(UsageError) as ours:
        fleet.load_textual_inversion("absent.safetensors")
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"sampler": "eular"},
        {"seed": "x"},
        {"prompt": "a red circle " * 101},
        {"image": np.zeros((128, 128, 3), np.uint8), "steps": 1},
        {"noise": "x"},
        {"noise": np.zeros((3, 4, 8, 8), np.float32)},
        {"output": "pixels"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_what_one_refuses_all_refuse_in_the_same_words(one: Pipeline, fleet: Fleet, settings: dict[str, Any]) -> None:
    messages = []
    for each in (one, fleet):
        with pytest.raises(UsageError) as caught:
            each(**{"prompt": PROMPT, "steps": 2, "seed": (1, 2, 3), **settings})
        messages.append((type(caught.value), caught.value.what))
    assert messages[0] == messages[1]
    assert {NoStepLeft, PromptTooLong, UnknownName, UsageError} >= {messages[0][0]}


def test_what_cannot_be_sent(fleet: Fleet) -> None:
    with pytest.raises(UsageError, match="cannot be sent to a worker"):
        fleet(PROMPT, image=lambda: None, seed=(1, 2))
    assert fleet(PROMPT, steps=1).images


def test_the_error_of_one_ends_the_others(fleet: Fleet) -> None:
    noise = np.random.default_rng(0).standard_normal((2, 4, 16, 16), np.float32)
    noise[0] = 1e37  # finite, but not once it is squared
    steps, (_, second) = list[int](), processes(fleet)

    def callback(step: Step) -> None:
        if step.picture == 1:
            steps.append(step.done)
            if len(steps) == 3:
                os.kill(second, signal.SIGSTOP)
        elif step.done == step.total:  # it fails now, and the other finds that out once it goes on
            threading.Timer(1.0, os.kill, (second, signal.SIGCONT)).start()

    with pytest.raises(RunError, match="denoising gave NaN or infinity") as caught:
        fleet(PROMPT, noise=noise, seed=(1, 2), steps=200, callback=callback)
    assert caught.value.fix
    assert steps[-1] < 200
    assert fleet(PROMPT, seed=(1, 2), steps=1).images


def test_a_worker_that_does_not_stop_is_killed(demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "gather", functools.partial(gather, grace=0.2))
    fleet = Fleet.load(demo_bundle, TWO, threads=1)
    pids = processes(fleet)

    def hang(step: Step) -> None:
        if step.done == 2:
            os.kill(pids[1], signal.SIGSTOP)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fleet(PROMPT, seed=(1, 2), steps=999, callback=hang)
    assert gone(pids)
    with pytest.raises(UsageError, match="this Fleet was closed"):
        fleet(PROMPT)


def test_an_exception_in_a_callback_ends_all(one: Pipeline, fleet: Fleet) -> None:
    def stop(step: Step) -> None:
        if step.done == 2:
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fleet(PROMPT, seed=(1, 2), steps=999, callback=stop)
    assert time.monotonic() - started < 15
    settings: dict[str, Any] = {"seed": (1, 2), "steps": 2, "output": "latents"}
    np.testing.assert_array_equal(fleet(PROMPT, **settings).latents, one(PROMPT, **settings).latents)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_is_an_error_and_takes_the_others_along(demo_bundle: Path, number: signal.Signals) -> None:
    fleet = Fleet.load(demo_bundle, TWO, threads=1)
    pids = processes(fleet)

    def kill(step: Step) -> None:
        if step.picture == 1 and step.done == 2:
            os.kill(pids[1], number)

    with pytest.raises(RunError, match="the worker on cpu has ended") as caught:
        fleet(PROMPT, seed=(1, 2), steps=999, callback=kill)
    print(caught.value)
    assert caught.value.got == number.name
    assert gone(pids)
    with pytest.raises(UsageError, match="this Fleet was closed"):
        fleet(PROMPT)
    fleet.close()


def test_a_worker_that_died_between_two_calls(demo_bundle: Path) -> None:
    with Fleet.load(demo_bundle, TWO, threads=1) as fleet:
        pids = processes(fleet)
        os.kill(pids[0], signal.SIGKILL)
        assert gone(pids[:1])
        with pytest.raises(RunError, match="has ended"):
            fleet(PROMPT, seed=(1, 2), steps=1)
        assert gone(pids)


def test_closing_ends_all_processes(demo_bundle: Path) -> None:
    with Fleet.load(demo_bundle, TWO, threads=1) as fleet:
        pids = processes(fleet)
        assert len(set(pids)) == 2
        assert all(running(pid) for pid in pids)
    assert gone(pids, 0.0)
    with pytest.raises(UsageError, match="this Fleet was closed"):
        fleet(PROMPT)


def test_a_bundle_that_cannot_be_loaded(tmp_path: Path) -> None:
    before = children(os.getpid())
    with pytest.raises(BundleError) as theirs:
        Pipeline.load(tmp_path)
    with pytest.raises(BundleError) as ours:
        Fleet.load(tmp_path, TWO)
    assert str(ours.value) == str(theirs.value)
    assert children(os.getpid()) == before


@pytest.mark.parametrize("devices", [[], "cpu", ["gpu"], ["cuda", "cuda:0"], ["cuda:1", "cpu", "cuda:1"]], ids=repr)
def test_devices_that_cannot_be_used(demo_bundle: Path, devices: Any) -> None:
    with pytest.raises(UsageError, match="cannot be used") as caught:
        Fleet.load(demo_bundle, devices)
    assert caught.value.fix


PROGRAM = """
import sys
from sdxl_trt import Fleet

fleet = Fleet.load(sys.argv[1], ["cpu", "cpu"], threads=1)  # nothing guards this from being imported
fleet("a star", seed=(1, 2), steps=1000, callback=lambda step: print(step.done, flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(demo_bundle: Path, tmp_path: Path, number: signal.Signals) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = subprocess.Popen([sys.executable, str(program), str(demo_bundle)], stdout=-1, stderr=-1)
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdigit()
    pids = children(process.pid)
    assert len(pids) == 2
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == -number
    assert gone(pids)


def test_errors_come_through_a_pipe_as_they_were() -> None:
    errors: list[SdxlTrtError] = [
        UsageError("a", got="b", expected="c", fix="d"),
        UnknownName("GPU", "rtx306", ["rtx3060"]),
        NoStepLeft("strength", got="a", expected="b", fix="c"),
    ]
    for error in errors:
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert (str(copy), vars(copy), copy.args) == (str(error), vars(error), error.args)
