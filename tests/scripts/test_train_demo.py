"""The training program: its captions and pictures, and every stage for a few steps, killed and resumed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.demo_model.captions import BACKGROUNDS, COLOURS, RELATIONS, SHAPES, SIZES, scenes
from scripts.demo_model.pictures import BUCKETS, Conditions, draw_conditions, plain, render
from sdxl_trt.paths import DEMO_CHECKPOINT

ROOT = Path(__file__).parents[2]
STAGES = ("vae", "decoder", "unet", "student", "soft-vae", "soft-unet", "refiner")
KINDS = (*SIZES, *RELATIONS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_shape_has_its_backgrounds_colour(kind: str) -> None:
    every = scenes(kind, held_out=False) + scenes(kind, held_out=True)
    assert all(thing.colour != scene.background for scene in every for thing in scene.things)
    pairs = [sum(colour != background for colour in COLOURS) * len(SHAPES) for background in BACKGROUNDS]
    assert len(every) == sum(count ** (1 if kind in SIZES else 2) for count in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_captions_are_seen_or_held_out(kind: str) -> None:
    seen, unseen = ({scene.caption for scene in scenes(kind, held_out=held)} for held in (False, True))
    assert not seen & unseen
    assert 0.15 < len(unseen) / (len(seen) + len(unseen)) < 0.25


@pytest.mark.parametrize("size", BUCKETS, ids=str)
def test_pictures_have_their_size_whatever_the_conditions(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    for scene in scenes("left", held_out=False)[:40]:
        conditions = draw_conditions(random, size)
        assert render(scene, conditions, random).shape == (size[1], size[0], 3)
        assert conditions.time_ids[4:] == (size[1], size[0])
        assert len(conditions.refiner_time_ids) == 5


def test_conditions_of_a_quality() -> None:
    random = np.random.default_rng(0)
    sharp, soft, every = (
        [draw_conditions(random, (128, 96), quality) for _ in range(200)] for quality in ("sharp", "soft", "any")
    )
    assert all(each.original == each.canvas and each.blur == 0 for each in sharp)
    assert all(each.original <= each.canvas for each in soft)
    assert 0.05 < min(each.original[0] / each.canvas[0] for each in soft) < 0.2
    small, large = (sum(sign * (a.original[0] - a.canvas[0]) > 0 for a in every) for sign in (-1, 1))
    assert 20 < small < 80
    assert 20 < large < 80


def test_a_crop_moves_the_picture() -> None:
    scene = scenes("large", held_out=False)[0]
    whole = render(scene, plain((128, 144)), np.random.default_rng(0))
    cut = Conditions(original=(144, 128), crop=(16, 0), target=(128, 128))
    assert (render(scene, cut, np.random.default_rng(0)) == whole[16:]).all()


def arguments(out: Path, *, steps: int, save_seconds: float = 0.0) -> list[str]:
    settings = ["--out", str(out), "--workers", "1", "--shard", "4", "--save-seconds", str(save_seconds)]
    for stage in STAGES:
        settings += ["--steps", f"{stage}={steps}"]
    return [sys.executable, "-m", "scripts.demo_model", *settings]


def state(out: Path, stage: str) -> dict[str, torch.Tensor]:
    return torch.load(out / f"{stage}.pt", weights_only=True)


@pytest.mark.slow
def test_killed_training_resumes_to_the_same_state(tmp_path: Path) -> None:
    """Killed once in the middle of every stage, it ends where an unbroken run ends, bit for bit."""
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    subprocess.run(arguments(unbroken, steps=3), cwd=ROOT, check=True)
    for stage in STAGES:
        process = subprocess.Popen(arguments(broken, steps=3), cwd=ROOT)
        while not (broken / f"{stage}.pt").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(arguments(broken, steps=3), cwd=ROOT, check=True)
    for stage in STAGES:
        expected, got = state(unbroken, stage), state(broken, stage)
        assert got["step"] == expected["step"] == 3
        for part in ("models", "average"):
            assert all(torch.equal(got[part][name], value) for name, value in expected[part].items()), (stage, part)
    for name in ("sdxl-shapes", "sdxl-shapes-turbo", "sdxl-shapes-refiner"):
        for file in (unbroken / "result" / name).rglob("*.*"):
            assert file.read_bytes() == (broken / file.relative_to(unbroken)).read_bytes(), file


@pytest.mark.slow
def test_results_are_checkpoints_of_the_committed_architecture(tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline
    from safetensors import safe_open

    subprocess.run(arguments(tmp_path, steps=1), cwd=ROOT, check=True)
    result = tmp_path / "result"
    for file in DEMO_CHECKPOINT.rglob("*.safetensors"):
        new = result / "sdxl-shapes" / file.relative_to(DEMO_CHECKPOINT)
        with safe_open(file, "pt") as old_tensors, safe_open(new, "pt") as new_tensors:
            assert set(new_tensors.keys()) == set(old_tensors.keys())
            for name in old_tensors.keys():  # noqa: SIM118 - not a mapping
                assert new_tensors.get_slice(name).get_shape() == old_tensors.get_slice(name).get_shape()
    for shared in ("vae", "text_encoder_2", "tokenizer_2"):
        for file in (result / "sdxl-shapes" / shared).iterdir():
            for name in ("sdxl-shapes-turbo", "sdxl-shapes-refiner"):
                assert file.read_bytes() == (result / name / shared / file.name).read_bytes()
    prompt, common = "a large red circle on a white background", {"num_inference_steps": 5, "guidance_scale": 5.0}
    base, refiner = (
        DiffusionPipeline.from_pretrained(result / name, variant="fp16", dtype=torch.float32)
        for name in ("sdxl-shapes", "sdxl-shapes-refiner")
    )
    latents = base(prompt, width=96, height=128, denoising_end=0.8, output_type="latent", **common).images
    picture = refiner(prompt, image=latents, denoising_start=0.8, **common).images[0]
    assert picture.size == (96, 128)
    student = DiffusionPipeline.from_pretrained(result / "sdxl-shapes-turbo", variant="fp16", dtype=torch.float32)
    picture = student(prompt, width=128, height=96, num_inference_steps=1, guidance_scale=0.0).images[0]
    assert picture.size == (128, 96)


def test_a_misspelt_stage_is_refused() -> None:
    from click.testing import CliRunner

    from scripts.demo_model.__main__ import main

    result = CliRunner().invoke(main, ["--steps", "unnet=5"])
    assert result.exit_code == 2
    assert "expected STAGE=N" in result.output
