"""What the demo models draw, scored: prompts that training never saw, at every trained size; one report per model.

Ours is the project's own runtime over CPU bundles built from the checkpoints; diffusers draws the first of the same
prompts and seeds beside it. A picture is right if background, colours, shapes and size or position are all as the
prompt says (`benchmarks.scorer`). Sharpness is the steepness of edges; the refiner's is set against that of the base,
which makes all of the steps.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.peer import GUIDANCE, PACKAGES, STEPS
from benchmarks.report import RESULTS, Aim, Report
from benchmarks.scorer import Picture, Verdict, judge, read, sharpness
from scripts.demo_model.captions import Scene, scenes
from scripts.demo_model.pictures import BUCKETS, plain, render
from sdxl_trt.bench.machine import usable_cpus
from sdxl_trt.bench.rows import Row
from sdxl_trt.files import sha256_json, sha256_of, write_json
from sdxl_trt.paths import DEMO_CHECKPOINT, cache_folder
from sdxl_trt.runtime import Pipeline

Size = tuple[int, int]
"""Width and height in pixels."""

BASE, STUDENT, REFINER = (DEMO_CHECKPOINT.name + suffix for suffix in ("", "-turbo", "-refiner"))
NEEDED = {"base": (BASE,), "student": (STUDENT,), "refiner": (BASE, REFINER)}
KINDS = ("large", "left", "above", "small", "left", "above")
"""Kinds of prompts, in turns: a third shows one thing."""
BASE_RIGHT = 97.0
STUDENT_RIGHT = {4: 90.0, 1: 75.0}
"""Percent that should be right, the student's by steps."""
REFINED = 1.05
"""Edges with the refiner should be so many times as steep. The VAE sets a limit, which is measured beside it: what it
makes of rendered truth."""
SMALL_ORIGINALS = (1 / 2, 1 / 4, 1 / 8)
"""Of the picture's width and height: those of figure 3 in SDXL's paper, arXiv 2307.01952."""
SOFT = 0.7
"""Edges of pictures from the smallest originals should be at most so many times as steep."""
CROP = 32
"""Pixels cropped at the left: centres move by half of that, to the left."""
MOVED = 8.0
REFINER_AT = 0.8
"""The part of the noise schedule that the base leaves to the refiner begins here."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Pictures of prompts, in their order."""

    asked: Sequence[Scene]
    pictures: Sequence[Picture]

    @property
    def verdicts(self) -> list[Verdict]:
        """What the scorer says of each."""
        return [judge(picture, scene) for picture, scene in zip(self.pictures, self.asked, strict=True)]

    def row(self, who: str, what: str) -> Row:
        """Percent wholly right."""
        verdicts = self.verdicts
        return Row(
            who=who, what=f"right, {what}", unit="%", samples=(100 * float(np.mean([v.right for v in verdicts])),)
        )

    @property
    def wrong(self) -> list[dict[str, Any]]:
        """The captions that were missed, and in what."""
        pairs = zip(self.asked, self.verdicts, strict=True)
        return [{"caption": scene.caption, **vars(verdict)} for scene, verdict in pairs if not verdict.right]

    @property
    def sharpness(self) -> float:
        """The mean over all pictures."""
        return float(np.mean([sharpness(picture) for picture in self.pictures]))

    @property
    def middle(self) -> float:
        """Where things are on average, in pixels from the left."""
        return float(np.mean([part.centre[0] for picture in self.pictures for part in read(picture)[1]]))


def unseen(count: int) -> list[Scene]:
    """Held-out scenes, always the same ones."""
    random = np.random.default_rng(300)
    shuffled = {kind: iter(random.permutation(np.array(scenes(kind, held_out=True)))) for kind in sorted(set(KINDS))}
    return [next(shuffled[KINDS[i % len(KINDS)]]) for i in range(count)]


def build(checkpoint: Path) -> Pipeline:
    """The checkpoint's CPU bundle, built if it is not there, and loaded."""
    digest = sha256_json([sha256_of(path) for path in sorted(checkpoint.rglob("*.safetensors"))])
    bundle = cache_folder() / "quality" / f"{checkpoint.name}-{digest[:8]}"
    sizes = ["--sizes", "96x96..192x192", "-o", str(bundle)]
    command = [sys.executable, "-m", "sdxl_trt", "build", str(checkpoint), "--gpu", "cpu", *sizes]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return Pipeline.load(bundle, threads=usable_cpus())


def ours(pipeline: Pipeline, asked: Sequence[Scene], **settings: Any) -> Drawn:
    """One picture of each scene, with its number as the seed."""
    results = (pipeline(scene.caption, seed=seed, **settings) for seed, scene in enumerate(asked))
    return Drawn(asked=asked, pictures=[np.asarray(result.images[0]) for result in results])


def load_peer(checkpoint: Path) -> Any:
    """diffusers' pipeline of a checkpoint, in float32 on the CPU."""
    import torch
    from diffusers import DiffusionPipeline

    torch.set_num_threads(usable_cpus())
    pipeline = DiffusionPipeline.from_pretrained(checkpoint, variant="fp16", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def ours_refined(base: Pipeline, refiner: Pipeline, asked: Sequence[Scene], **settings: Any) -> Drawn:
    """The pictures of `ours`, the last fifth of the steps made by a refiner."""
    pictures = []
    for seed, scene in enumerate(asked):
        noisy = base(scene.caption, seed=seed, denoising_end=REFINER_AT, output="latents", **settings).latents
        refined = refiner(scene.caption, seed=seed, image=noisy, denoising_start=REFINER_AT, **settings)
        pictures.append(np.asarray(refined.images[0]))
    return Drawn(asked=asked, pictures=pictures)


def theirs(pipeline: Any, asked: Sequence[Scene], size: Size) -> Drawn:
    """The pictures of `ours` in diffusers."""
    import torch

    pictures = []
    for seed, scene in enumerate(asked):
        generator = torch.Generator("cpu").manual_seed(seed)
        settings = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "generator": generator}
        image = pipeline(scene.caption, width=size[0], height=size[1], **settings).images[0]
        pictures.append(np.asarray(image))
    return Drawn(asked=asked, pictures=pictures)


@dataclass(frozen=True, kw_only=True)
class Found:
    """One row, what it should keep, and the prompts that were missed."""

    row: Row
    aim: Aim | None = None
    wrong: Sequence[dict[str, Any]] = ()


def at_least(row: Row, bound: float, drawn: Drawn | None = None) -> Found:
    """A row with a lower bound."""
    return Found(row=row, aim=Aim(row=row, bound=bound, at_most=False), wrong=drawn.wrong if drawn else ())


def measure_base(models: Path, asked: Sequence[Scene], sizes: Sequence[Size], beside: int) -> Iterator[Found]:
    """The base at every size, with diffusers beside it for the first prompts; then its micro-conditioning."""
    pipeline, peer = build(models / BASE), load_peer(models / BASE)
    for size in sizes:
        what = f"{_name(size)}, {STEPS} steps"
        drawn = ours(pipeline, asked, size=size, steps=STEPS, guidance=GUIDANCE)
        yield at_least(drawn.row("sdxl-trt", what), BASE_RIGHT, drawn)
        compared = theirs(peer, asked[:beside], size)
        first = Drawn(asked=asked[:beside], pictures=drawn.pictures[:beside])
        yield Found(row=first.row("sdxl-trt", f"{what}, first {beside}"))
        yield Found(row=compared.row("diffusers", f"{what}, first {beside}"), wrong=compared.wrong)
    yield from measure_conditions(pipeline, asked[:beside], sizes[0])


def measure_conditions(pipeline: Pipeline, asked: Sequence[Scene], size: Size) -> Iterator[Found]:
    """What a small original and a crop do."""
    common: dict[str, Any] = {"size": size, "steps": STEPS, "guidance": GUIDANCE}
    whole = ours(pipeline, asked, **common)
    for scale in SMALL_ORIGINALS:
        small = (round(size[0] * scale), round(size[1] * scale))
        soft = ours(pipeline, asked, original_size=small, **common)
        what = f"sharpness, original {_name(small)} ÷ {_name(size)}"
        row = Row(who="sdxl-trt", what=what, unit="×", samples=(soft.sharpness / whole.sharpness,))
        last = scale == SMALL_ORIGINALS[-1]
        yield Found(row=row, aim=Aim(row=row, bound=SOFT, at_most=True) if last else None)
    cropped = ours(pipeline, asked, crop_top_left=(0, CROP), **common)
    what, moved = f"moved to the left by a crop of {CROP} pixels", whole.middle - cropped.middle
    yield at_least(Row(who="sdxl-trt", what=what, unit="px", samples=(moved,)), MOVED)


def measure_student(models: Path, asked: Sequence[Scene], sizes: Sequence[Size], _beside: int) -> Iterator[Found]:
    """The student without guidance, at every size."""
    pipeline = build(models / STUDENT)
    for steps, bound in STUDENT_RIGHT.items():
        for size in sizes:
            drawn = ours(pipeline, asked, size=size, steps=steps, guidance=1.0)
            yield at_least(drawn.row("sdxl-trt, student", f"{_name(size)}, steps: {steps}"), bound, drawn)


def round_trip(checkpoint: Path, asked: Sequence[Scene], size: Size) -> Drawn:
    """Rendered truth, as sharp as it can be, encoded and decoded by the checkpoint's VAE in diffusers."""
    import torch
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(checkpoint / "vae", variant="fp16", torch_dtype=torch.float32)
    random = np.random.default_rng(len(asked))
    sharp, pictures = dataclasses.replace(plain(size), blur=0.0), []
    for scene in asked:
        pixels = torch.from_numpy(render(scene, sharp, random)).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.no_grad():
            decoded = vae.decode(vae.encode(pixels).latent_dist.mean).sample[0]
        pictures.append(((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
    return Drawn(asked=asked, pictures=pictures)


def measure_refiner(models: Path, asked: Sequence[Scene], sizes: Sequence[Size], beside: int) -> Iterator[Found]:
    """Base and refiner beside the base alone, at every size."""
    base, refiner = build(models / BASE), build(models / REFINER)
    for size in sizes:
        common: dict[str, Any] = {"size": size, "steps": STEPS, "guidance": GUIDANCE}
        alone, refined = ours(base, asked[:beside], **common), ours_refined(base, refiner, asked[:beside], **common)
        yield Found(row=alone.row("sdxl-trt", f"{_name(size)}, first {beside}"), wrong=alone.wrong)
        yield at_least(refined.row("sdxl-trt, refiner", f"{_name(size)}, first {beside}"), BASE_RIGHT, refined)
        for who, drawn in (("sdxl-trt", alone), ("VAE of truth", round_trip(models / BASE, asked[:beside], size))):
            yield Found(row=Row(who=who, what=f"sharpness, {_name(size)}", unit="/px", samples=(drawn.sharpness,)))
        steeper = refined.sharpness / alone.sharpness
        what = f"sharpness ÷ the base's, {_name(size)}"
        yield at_least(Row(who="sdxl-trt, refiner", what=what, unit="×", samples=(steeper,)), REFINED)


MEASURES: dict[str, Callable[[Path, Sequence[Scene], Sequence[Size], int], Iterator[Found]]] = {
    "base": measure_base,
    "student": measure_student,
    "refiner": measure_refiner,
}


def measure(model: str, models: Path, prompts: int, sizes: Sequence[Size], beside: int) -> Report:
    """All rows of one of `MEASURES`; each is told as soon as it is measured."""
    found = []
    for each in MEASURES[model](models, unseen(prompts), sizes, beside):
        found.append(each)
        click.echo(f"{each.row.who}, {each.row.what}: {each.row.median:.3g} {each.row.unit}", err=True)
    return Report(
        title=f"Quality of the demo model, {model}, on the CPU, float32",
        settings={"unseen prompts": prompts, "guidance": GUIDANCE, "sizes": " ".join(map(_name, sizes))},
        distributions=("sdxl-trt", "onnxruntime", "numpy", "pillow", *PACKAGES),
        rows=[each.row for each in found],
        aims=[each.aim for each in found if each.aim],
        details={"wrong": {f"{each.row.who}, {each.row.what}": each.wrong for each in found if each.wrong}},
        timed=False,
    )


def _name(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


@click.command("quality")
@click.argument("model", type=click.Choice([*MEASURES]))
@click.option("--models", type=click.Path(path_type=Path, exists=True), default=DEMO_CHECKPOINT.parent)
@click.option("--prompts", type=click.IntRange(6, 300), default=300, show_default=True)
@click.option(
    "--beside", type=click.IntRange(6, 300), default=30, show_default=True, help="Prompts for what is compared."
)
@click.option(
    "--size", "sizes", multiple=True, type=click.Choice([*map(_name, BUCKETS)]), help="[default: all trained]"
)
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the JSON file.")
def main(model: str, models: Path, prompts: int, beside: int, sizes: tuple[str, ...], output: Path) -> None:
    """Score the demo model, its student or its refiner on unseen prompts; exit 1 if it misses an aim."""
    if missing := [name for name in NEEDED[model] if not (models / name).exists()]:
        raise click.UsageError(
            f"no {' and '.join(missing)} in {models}; scripts/train_demo makes them in out/train/result"
        )
    chosen = [size for size in BUCKETS if not sizes or _name(size) in sizes]
    report = measure(model, models, prompts, chosen, min(beside, prompts))
    click.echo(report)
    write_json(output / f"quality_{model}.json", report.as_json())
    sys.exit(not all(aim.met for aim in report.aims))


if __name__ == "__main__":
    main()
