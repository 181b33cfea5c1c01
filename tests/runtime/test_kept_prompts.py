"""What the text encoders gave is kept: a prompt that comes again runs none, and gives the same to the last bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.device import Buffer, HostDevice, Stream
from sdxl_trt.runtime.engine import Binding, Engine
from sdxl_trt.runtime.loading import Loaded, load
from sdxl_trt.runtime.prompts import encoder as encoders
from sdxl_trt.runtime.recent import Recent

PROMPT = "a large red circle on a white background"
SETTINGS: dict[str, Any] = {"steps": 2, "seed": 7, "output": "latents"}


class Counted:
    """An engine that says when it runs."""

    def __init__(self, engine: Engine, ran: Callable[[], None]) -> None:
        self.name, self.inputs, self.outputs = engine.name, engine.inputs, engine.outputs
        self._engine, self._ran = engine, ran

    def use(self, kept: Recent[Any, Any]) -> None:
        self._engine.use(kept)

    def bind(self, buffers: Mapping[str, Buffer]) -> CountedBinding:
        return CountedBinding(self._engine.bind(buffers), self._ran)

    def close(self) -> None:
        self._engine.close()


class CountedBinding:
    capturable = True

    def __init__(self, binding: Binding, ran: Callable[[], None]) -> None:
        self._binding, self._ran = binding, ran

    def enqueue(self, stream: Stream) -> None:
        self._ran()
        self._binding.enqueue(stream)


@pytest.fixture(scope="module")
def loaded(demo_bundle: Path) -> Loaded:
    return load(demo_bundle, threads=1)


@pytest.fixture
def counted(loaded: Loaded) -> tuple[Pipeline, list[str]]:
    return count(loaded)


def count(loaded: Loaded) -> tuple[Pipeline, list[str]]:
    """A pipeline, and the text encoders that ran in it."""
    ran = list[str]()
    wrapped = tuple(
        dataclasses.replace(each, engine=Counted(each.engine, lambda name=each.spec.name: ran.append(name)))
        for each in loaded.encoders
    )
    return Pipeline(dataclasses.replace(loaded, encoders=wrapped), HostDevice()), ran


def word(folder: Path) -> Path:
    from safetensors.numpy import save_file

    generator = np.random.default_rng(0)
    vectors = {name: generator.standard_normal((2, 64)).astype(np.float32) * 0.3 for name in ("clip_l", "clip_g")}
    save_file(vectors, folder / "toy.safetensors")
    return folder / "toy.safetensors"


def test_a_repeated_request_runs_no_text_encoder(counted: tuple[Pipeline, list[str]]) -> None:
    pipe, ran = counted
    settings = SETTINGS | {"negative_prompt": "blue", "clip_skip": 1}
    first = pipe(PROMPT, **settings).latents
    assert sorted(ran) == ["text_encoder", "text_encoder_2"]
    ran.clear()
    np.testing.assert_array_equal(pipe(PROMPT, **settings).latents, first)
    assert not ran


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "a large blue circle"},
        {"negative_prompt": "green"},
        {"clip_skip": 1},
        {"prompt_2": "a star"},
        {"prompt": "x " * 76},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_request_gives_what_it_gives_alone(
    counted: tuple[Pipeline, list[str]], loaded: Loaded, other: dict[str, Any]
) -> None:
    pipe, ran = counted
    settings = {"prompt": PROMPT, "negative_prompt": "blue"} | SETTINGS
    pipe(**settings)
    ran.clear()
    got = pipe(**settings | other).latents
    assert ran
    np.testing.assert_array_equal(got, Pipeline(loaded, HostDevice())(**settings | other).latents)


def test_weights_need_no_text_encoder(counted: tuple[Pipeline, list[str]], loaded: Loaded) -> None:
    pipe, ran = counted
    plain = pipe.encode("a star", weighting="a1111")
    ran.clear()
    weighted = pipe.encode("a (star:1.3)", weighting="a1111")
    assert not ran
    assert np.abs(weighted.hidden - plain.hidden).max() > 0.1
    alone = Pipeline(loaded, HostDevice()).encode("a (star:1.3)", weighting="a1111")
    np.testing.assert_array_equal(weighted.hidden, alone.hidden)


def test_a_word_that_comes_later_is_respected(
    counted: tuple[Pipeline, list[str]], loaded: Loaded, tmp_path: Path
) -> None:
    pipe, ran = counted
    before = pipe.encode("a <toy> circle")
    pipe.load_textual_inversion(word(tmp_path), token="<toy>")
    ran.clear()
    taught = pipe.encode("a <toy> circle")
    assert sorted(ran) == ["text_encoder", "text_encoder_2"]
    assert np.abs(taught.hidden - before.hidden).max() > 0.1
    fresh = Pipeline(loaded, HostDevice())
    fresh.load_textual_inversion(word(tmp_path), token="<toy>")
    np.testing.assert_array_equal(taught.hidden, fresh.encode("a <toy> circle").hidden)
    np.testing.assert_array_equal(taught.pooled, fresh.encode("a <toy> circle").pooled)


def test_only_the_last_prompts_are_kept(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "KEPT", 3)
    pipe, ran = count(loaded)
    for prompt in ("one", "two", "three", "one", "four"):
        pipe.encode(prompt)
    assert len(ran) == 2 * 4
    for prompt, runs in (("one", 0), ("three", 0), ("four", 0), ("two", 2), ("four", 0), ("one", 2)):
        ran.clear()
        pipe.encode(prompt)
        assert len(ran) == runs, prompt
