"""`--refiner` of `sdxl-trt build`, and the refiner's options of `sdxl-trt run`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import Models
from PIL import Image

from sdxl_trt.cli.models import export_folder

Command = Callable[..., Any]


@pytest.fixture
def run(sdxl_trt: Command, models: Models) -> Callable[..., Any]:
    """The outcome of a picture in out.png."""
    bundle = models.bundle("epsilon", "refiner")
    shared = ("--bundle", bundle, "--seed", 7, "--steps", 5, "--size", "96x64", "-o", "out.png")
    return lambda *options: sdxl_trt("run", "a red circle", *shared, *options)


def test_a_bundle_with_a_refiner(sdxl_trt: Command, models: Models) -> None:
    checkpoints = [models.checkpoint(name) for name in ("epsilon", "refiner")]
    for name, checkpoint in zip(("epsilon", "refiner"), checkpoints, strict=True):
        shutil.copytree(models.export(name), export_folder(checkpoint))  # spares the test the tracing
    base, refiner = checkpoints
    options = ("--gpu", "cpu", "--sizes", "64x64..128x128", "-o", "both")
    built = sdxl_trt("build", base, "--refiner", refiner, *options, "--json")
    assert built.status == 0, built
    assert built.json["targets"][0]["refiner"] is True
    assert "build onnxruntime-x86_64 refiner step" in built.err
    assert ", with a refiner, accepted here" in sdxl_trt("build", base, "--refiner", refiner, *options).out
    shown = sdxl_trt("inspect", "both", "--verify").out
    assert "SDXL refiner" in shown
    lines = {line.split("bytes")[0].strip().rsplit(" ", 1)[0].strip(): line for line in shown.splitlines()}
    assert lines["refiner's vae_decoder"].endswith("the model's own")
    assert not lines["refiner's step"].endswith("the model's own")
    assert sdxl_trt("inspect", "both", "--json").json["refiner"]["model"]["kind"] == "refiner"
    assert sdxl_trt("run", "x", "--bundle", "both", "--steps", 2, "--refiner-start", 0.5).status == 0


def test_an_ensemble(run: Callable[..., Any], sdxl_trt: Command) -> None:
    assert run("--refiner-start", 0.6, "--refiner-sampler", "DPM++ 2M", "--aesthetic-score", 7).status == 0
    settings = sdxl_trt("inspect", "out.png", "--json").json["settings"]
    expected = {"Refiner switch at": 0.6, "Refiner steps": 5, "Refiner sampler": "DPM++ 2M", "Aesthetic score": 7.0}
    assert expected.items() <= settings.items()
    assert settings["Refiner"].startswith("model [")
    refined = np.asarray(Image.open("out.png"))
    assert run().status == 0
    assert not any(
        name.startswith(("Refiner", "Aesthetic")) for name in sdxl_trt("inspect", "out.png", "--json").json["settings"]
    )
    assert not np.array_equal(np.asarray(Image.open("out.png")), refined)


def test_a_picture_is_refined_by_strength(run: Callable[..., Any], sdxl_trt: Command) -> None:
    assert run("--refiner-strength", 0.5, "--refiner-steps", 8, "--refiner-guidance", 3).status == 0
    settings = sdxl_trt("inspect", "out.png", "--json").json["settings"]
    assert {"Refiner strength": 0.5, "Refiner steps": 8, "Refiner CFG scale": 3.0}.items() <= settings.items()
    assert settings["Refiner switch at"] is None


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--refiner-start", "1.2"), ["refiner_start", "0 to 1"]),
        (("--refiner-start", "0.99"), ["refiner_start leaves no step to the refiner", "more steps"]),
        (("--refiner-start", "0.8", "--refiner-strength", "0.3"), ["two ways"]),
        (("--refiner-steps", "8"), ["refiner_steps needs a way to refine"]),
        (("--refiner-start", "0.6", "--aesthetic-score", "20"), ["aesthetic_score", "0 to 10"]),
    ],
)
def test_what_cannot_be(run: Callable[..., Any], options: tuple[str, ...], parts: list[str]) -> None:
    outcome = run(*options)
    assert outcome.status == 2
    assert all(part in outcome.err for part in parts), outcome.err
    assert not Path("out.png").exists()


def test_a_bundle_without_a_refiner(sdxl_trt: Command, demo_bundle: Path) -> None:
    outcome = sdxl_trt("run", "a red circle", "--bundle", demo_bundle, "--refiner-start", 0.8, "-o", "out.png")
    assert outcome.status == 2
    for part in ("refiner_start needs a refiner", "sdxl-shapes, target onnxruntime", "--refiner"):
        assert part in outcome.err
    assert not Path("out.png").exists()


@pytest.mark.parametrize(
    ("base", "refiner", "status", "parts"),
    [
        ("epsilon", "epsilon", 2, ["is no refiner", "a base model of 2 text encoders"]),
        ("refiner", "refiner", 2, ["cannot have a refiner", "a base model as MODEL"]),
        ("demo", "refiner", 2, ["has other latents than", "scaling_factor"]),
        ("epsilon", "absent", 1, ["absent"]),
    ],
)
def test_pairs_that_cannot_be(
    sdxl_trt: Command, models: Models, base: str, refiner: str, status: int, parts: list[str]
) -> None:
    """Refused before anything is traced."""
    second = Path("absent") if refiner == "absent" else models.checkpoint(refiner)
    outcome = sdxl_trt("build", models.checkpoint(base), "--refiner", second, "--gpu", "cpu", "-o", "engines")
    assert outcome.status == status
    assert "error:" in outcome.err
    assert all(part in outcome.err for part in parts), outcome.err
    assert not Path("engines").exists()
