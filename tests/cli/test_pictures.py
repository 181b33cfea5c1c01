"""Options of `sdxl-trt run` that are about pictures to start from, and about samplers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

Command = Callable[..., Any]


@pytest.fixture
def run(sdxl_trt: Command, demo_bundle: Path) -> Callable[..., Any]:
    """The outcome of a picture in out.png."""
    return lambda *options: sdxl_trt(
        "run", "a red circle", "--bundle", demo_bundle, "--seed", 7, "--steps", 4, "-o", "out.png", *options
    )


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A picture and a mask."""
    picture, mask = tmp_path / "in.png", tmp_path / "mask.png"
    Image.new("RGB", (128, 128), (30, 84, 240)).save(picture)
    drawn = Image.new("L", (128, 128), 0)
    ImageDraw.Draw(drawn).rectangle((32, 32, 79, 79), fill=255)
    drawn.save(mask)
    return picture, mask


def test_inpainting(run: Callable[..., Any], sdxl_trt: Command, files: tuple[Path, Path]) -> None:
    outcome = run("--image", files[0], "--mask", files[1], "--strength", 0.8, "--only-masked", 8, "--mask-blur", 0.5)
    assert outcome.status == 0, outcome
    made, given = (np.asarray(Image.open(path).convert("RGB"), int) for path in ("out.png", files[0]))
    changed = np.abs(made - given).max(axis=2) > 0
    assert changed.any()
    assert not changed[:24].any()
    settings = sdxl_trt("inspect", "out.png", "--json").json["settings"]
    expected = {"Denoising strength": 0.8, "Inpaint area": "Only masked", "Masked area padding": 8, "Mask blur": 0.5}
    assert expected.items() <= settings.items()


def test_samplers_and_their_options(run: Callable[..., Any], sdxl_trt: Command) -> None:
    assert run("--sampler", "DPM++ 2M", "--sigmas", "karras", "--rng", "cuda").status == 0
    settings = sdxl_trt("inspect", "out.png", "--json").json["settings"]
    assert {"Sampler": "DPM++ 2M", "Schedule type": "Karras", "RNG": None}.items() <= settings.items()
    karras = np.asarray(Image.open("out.png"))
    assert run("--sampler", "DPM++ 2M Karras", "--rng", "cuda").status == 0
    assert np.array_equal(np.asarray(Image.open("out.png")), karras)
    assert run("--sampler", "DPM++ 2M Karras").status == 0
    assert not np.array_equal(np.asarray(Image.open("out.png")), karras)


def test_tiles(run: Callable[..., Any], sdxl_trt: Command) -> None:
    assert run().status == 0
    assert sdxl_trt("inspect", "out.png", "--json").json["settings"]["VAE tile"] is None
    whole = np.asarray(Image.open("out.png"))
    assert run("--vae-tiling", "on", "--vae-tile", 64).status == 0
    assert sdxl_trt("inspect", "out.png", "--json").json["settings"]["VAE tile"] == 64
    assert not np.array_equal(np.asarray(Image.open("out.png")), whole)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--vae-tiling", "yes"), ["vae_tiling", "auto, on, off"]),
        (("--vae-tile", "100"), ["vae_tile", "a multiple of 32 up to"]),
        (("--sampler", "eular"), ["did you mean euler?"]),
        (("--sampler", "Euler a", "--sigmas", "karras"), ["has no option sigmas", "spacing"]),
        (("--eta", "2", "--sampler", "ddim"), ["eta", "0 to 1"]),
        (("--solver-order", "4", "--sampler", "unipc"), ["solver_order", "1 or 2 or 3"]),
        (("--image", "absent.png"), ["picture", "No such file"]),
        (("--strength", "0.5"), ["strength needs image"]),
        (("--rng", "tpu"), ["rng", "cpu or cuda"]),
    ],
)
def test_what_cannot_be(run: Callable[..., Any], options: tuple[str, ...], parts: list[str]) -> None:
    outcome = run(*options)
    assert outcome.status == 2
    assert all(part in outcome.err for part in parts), outcome.err
    assert not Path("out.png").exists()
