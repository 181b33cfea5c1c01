"""Options of `sdxl-trt run` and `sdxl-trt build` that are about prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdxl_trt.cli.build import make_profile
from sdxl_trt.runtime.described import _EMPHASES
from sdxl_trt.runtime.prompts.emphasis import WEIGHTINGS

Command = Callable[..., Any]


@pytest.fixture
def run(sdxl_trt: Command, demo_bundle: Path) -> Callable[..., tuple[Any, dict[str, str]]]:
    """A picture's pixels, and the settings that its file names."""

    def call(prompt: str, *options: object) -> tuple[Any, dict[str, str]]:
        shared = ("--bundle", demo_bundle, "--seed", 7, "--steps", 3, "-o", "out.png")
        outcome = sdxl_trt("run", prompt, *shared, *options)
        assert outcome.status == 0, outcome
        parameters = sdxl_trt("inspect", "out.png", "--json").json
        assert parameters["prompt"] == prompt
        return np.asarray(Image.open("out.png")).astype(int), parameters["settings"]

    return call


def test_brackets_weight_words_unless_told_otherwise(run: Callable[..., Any]) -> None:
    prompt = "a (red:1.8) circle"
    (on, settings), (named, _), (off, off_settings) = (
        run(prompt),
        run(prompt, "--weighting", "a1111"),
        run(prompt, "--weighting", "off"),
    )
    assert np.array_equal(on, named)
    assert not np.array_equal(on, off)
    assert settings["Emphasis"] is None
    assert off_settings["Emphasis"] == "None"
    escaped, _ = run(r"a \(red:1.8\) circle")
    assert np.array_equal(escaped, off)


def test_every_weighting_has_a_name_in_pictures() -> None:
    assert _EMPHASES.keys() == WEIGHTINGS.keys()


def test_clip_skip(run: Callable[..., Any]) -> None:
    plain, skipped = run("a red circle"), run("a red circle", "--clip-skip", 1)
    assert not np.array_equal(plain[0], skipped[0])
    assert skipped[1]["CLIP layers skipped"] == 1
    assert plain[1]["CLIP layers skipped"] is None


def test_embeddings(run: Callable[..., Any], tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    generator = np.random.default_rng(0)
    for name in ("one", "two"):
        tensors = {key: generator.standard_normal((2, 64)).astype(np.float32) for key in ("clip_l", "clip_g")}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    options = ("--embedding", "<toy>=one.safetensors", "--embedding", "cat-toy=two.safetensors")
    taught, settings = run("a <toy> cat-toy", *options)
    assert not np.array_equal(taught, run("a <toy> cat-toy")[0])
    hashes = [hashlib.sha256((tmp_path / f"{name}.safetensors").read_bytes()).hexdigest() for name in ("one", "two")]
    assert settings["TI hashes"] == f"<toy>: {hashes[0][:10]}, cat-toy: {hashes[1][:10]}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--weighting", "a111"], "did you mean a1111?"),
        (["--clip-skip", "9"], "0 to 2"),
        (["--embedding", "toy.safetensors"], "is not NAME=FILE"),
        (["--embedding", "=toy.safetensors"], "is not NAME=FILE"),
        (["--embedding", "toy=nowhere.safetensors"], "No such file"),
        (["--embedding", "toy=toy.pt"], "save_file"),
        (["--negative-prompt", "(a:1.2.3)"], "a weight in the prompt"),
    ],
)
def test_bad_options(sdxl_trt: Command, demo_bundle: Path, options: list[str], said: str) -> None:
    outcome = sdxl_trt("run", "a red circle", "--bundle", demo_bundle, "-o", "out.png", *options)
    assert outcome.status == 2
    assert said in outcome.err
    assert not Path("out.png").exists()


def test_engines_for_longer_prompts() -> None:
    for sizes in ((None, None), ((512, 512), None), (None, "512x512..1024x1024")):
        assert make_profile((1024, 1024), *sizes, 1, 6).tokens.max == 6 * 77


def test_how_many_chunks_there_may_be(sdxl_trt: Command) -> None:
    outcome = sdxl_trt("build", "demo", "--gpu", "cpu", "--prompt-chunks", 0)
    assert outcome.status == 2
    assert "--prompt-chunks" in outcome.err
