"""`sdxl-trt run`: a prompt becomes pictures."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdxl_trt.cli import json_option, print_json
from sdxl_trt.cli.bundles import BundleType
from sdxl_trt.cli.devices import device_options, load_maker
from sdxl_trt.cli.pictures import image_options, picture_settings, sampler_options, take_sampler_options, vae_options
from sdxl_trt.cli.previews import shown_previews
from sdxl_trt.cli.progress import shown_progress
from sdxl_trt.cli.prompts import Word, load_words, prompt_options, prompt_settings
from sdxl_trt.cli.refining import asks_for_refiner, refiner_options, refiner_shown
from sdxl_trt.cli.trust import key_option
from sdxl_trt.errors import OutputError, UsageError
from sdxl_trt.files import atomic_write, check_writable
from sdxl_trt.ship.references import Reference
from sdxl_trt.spec import parse_size
from sdxl_trt.spec.profile import format_size
from sdxl_trt.version import __version__

if TYPE_CHECKING:
    from sdxl_trt.runtime import Resolved, Result
    from sdxl_trt.runtime.maker import Maker

_PAIR = "TOP,LEFT"


class SizeType(click.ParamType[tuple[int, int]]):
    """`1024x768`: (width, height) in pixels."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parse, with click's own way to complain."""
        try:
            return value if isinstance(value, tuple) else parse_size(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


class CornerType(click.ParamType[tuple[int, int]]):
    """`0,64`: (top, left) in pixels."""

    name = _PAIR

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parse, with click's own way to complain."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,6}),(\d{1,6})", value)
        return (int(match[1]), int(match[2])) if match else self.fail(f"{value!r} is not {_PAIR}, as 0,64", param, ctx)


SIZE, CORNER = SizeType(), CornerType()


@click.command("run")
@click.argument("prompt")
@click.option(
    "--bundle",
    type=BundleType(),
    help="Folder, or a place to pull it from first (oci://host/name:tag); else the newest that fits this host.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="PNG file; several get -SEED before the suffix.")
@click.option("--prompt-2", help="Prompt for the second text encoder.  [default: the prompt]")
@click.option("--negative-prompt", help="What to keep away from. Empty text is not the same as none.")
@click.option("--negative-prompt-2", help="The same for the second text encoder.")
@prompt_options
@click.option("--size", type=SIZE, help="Width and height in pixels.  [default: the model's own]")
@click.option("--steps", type=int, help="Denoising steps.  [default: 30]")
@click.option("--guidance", type=float, help="Guidance scale; 1 or less turns it off.  [default: 5]")
@click.option("--guidance-end", type=float, default=1.0, help="0 to 1: guidance is off after this part of the steps.")
@click.option("--guidance-rescale", type=float, default=0.0, help="0 to 1 (arXiv 2305.08891).")
@click.option("--seed", type=int, multiple=True, help="One picture each; repeat for several.  [default: random]")
@click.option("-n", "--images", type=click.IntRange(1, 1000), help="Pictures, of one seed upwards or of random seeds.")
@sampler_options
@image_options
@refiner_options
@vae_options
@click.option("--original-size", type=SIZE, help="Size conditioning.  [default: the size]")
@click.option("--target-size", type=SIZE, help="Size conditioning.  [default: the size]")
@click.option("--crop-top-left", type=CORNER, default="0,0", help="Crop conditioning.")
@click.option("--negative-original-size", type=SIZE, help="Of the negative prompt; needs the next one too.")
@click.option("--negative-target-size", type=SIZE, help="Of the negative prompt; needs the one before too.")
@click.option("--negative-crop-top-left", type=CORNER, default="0,0", help="Of the negative prompt.")
@click.option(
    "--preview-every",
    type=click.IntRange(1),
    metavar="N",
    help="Every N steps, write what the picture looks like so far to NAME-preview.png; it goes when the picture comes.",
)
@device_options
@key_option
@json_option
def run_command(
    prompt: str,
    bundle: Path | Reference | None,
    output: Path | None,
    seed: tuple[int, ...],
    images: int | None,
    embedding: tuple[Word, ...],
    preview_every: int | None,
    device: str | None,
    devices: tuple[str, ...] | None,
    threads: int | None,
    memory: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Make pictures of PROMPT and write them as PNG files that say how they were made."""
    from sdxl_trt.runtime import Request

    started = time.monotonic()
    target = _free_name() if output is None else output
    _check_target(target)
    request = Request(prompt=prompt, seed=_seeds(seed, images), **take_sampler_options(settings))
    maker, folder = load_maker(
        bundle, device=device, devices=devices, threads=threads, refiner=asks_for_refiner(settings), memory=memory
    )
    with maker:
        words = load_words(maker, embedding)
        loaded = time.monotonic()
        with shown_previews(target, preview_every) as callback:
            with shown_progress(quiet=True) as progress:
                result = maker.run(request, progress=progress, callback=callback)
            more = prompt_settings(result.settings, words) | picture_settings(result.settings, settings)
            more |= refiner_shown(result.refiner, maker)
            files = _write(result, maker, target, more)
        finished = time.monotonic()
    report = {
        "bundle": str(folder),
        "target": maker.target.name,
        "memory": dataclasses.asdict(maker.memory),
        "files": [str(file) for file in files],
        "seeds": list(result.seeds),
        "seconds": {"load": round(loaded - started, 3), "pictures": round(finished - loaded, 3)},
    }
    if as_json:
        print_json(report)
        return
    click.echo(f"{folder} ({maker.target.name})\nmemory: {maker.memory}", err=True)
    for file, own_seed in zip(files, result.seeds, strict=True):
        click.echo(f"{file}  seed {own_seed}")


def _seeds(seeds: tuple[int, ...], images: int | None) -> Sequence[int] | None:
    if images is None:
        return seeds or None
    if len(seeds) > 1:
        raise UsageError("give several seeds or a number of images, not both", fix="--seed 7 -n 4 makes 7, 8, 9 and 10")
    import secrets

    return [seeds[0] + i for i in range(images)] if seeds else [secrets.randbits(32) for _ in range(images)]


def _free_name() -> Path:
    """A name in the current folder that nothing has yet: no picture is ever overwritten unasked."""
    taken = {path.name for path in Path().glob("sdxl-*.png")}
    return Path(next(name for i in range(1, 10**9) if (name := f"sdxl-{i:04}.png") not in taken))


def _check_target(target: Path) -> None:
    if target.suffix.lower() != ".png" or target.is_dir():
        raise OutputError(
            f"cannot write {target}", got="another kind of file", expected="a .png file", fix="-o out.png"
        )
    check_writable(target)


def _write(result: Result, maker: Maker, target: Path, more: dict[str, Any]) -> list[Path]:
    import numpy as np

    from sdxl_trt.runtime.png import Parameters, encode_png

    files = []
    for image, seed in zip(result.images, result.seeds, strict=True):
        file = target if len(result.seeds) == 1 else target.with_stem(f"{target.stem}-{seed}")
        shown = _shown(result.settings, seed, maker) | more
        parameters = Parameters(
            prompt=result.settings.prompt, negative_prompt=result.settings.negative_prompt or "", settings=shown
        )
        data = encode_png(np.asarray(image), parameters)
        with atomic_write(file) as stream:
            stream.write(data)
        files.append(file)
    return files


def _shown(settings: Resolved, seed: int, maker: Maker) -> dict[str, Any]:
    """Settings by the names that A1111's users know; ours where it has none, left out where they are the default."""
    from sdxl_trt.runtime.samplers import find_sampler

    micro, negative = settings.micro, settings.negative_micro
    own = {
        "Prompt 2": settings.prompt_2 if settings.prompt_2 != settings.prompt else None,
        "Negative prompt 2": settings.negative_prompt_2,
        "Negative prompt given": "empty" if settings.negative_prompt == "" else None,
        "CFG rescale": settings.guidance_rescale or None,
        "Guidance end": settings.guidance_end if settings.guidance_end < 1 else None,
        "Original size": format_size(micro.original_size) if micro.original_size != settings.size else None,
        "Target size": format_size(micro.target_size) if micro.target_size != settings.size else None,
        "Crop top left": _corner(micro.crop_top_left),
    }
    if negative != micro:
        own |= {
            "Negative original size": format_size(negative.original_size),
            "Negative target size": format_size(negative.target_size),
            "Negative crop top left": _corner(negative.crop_top_left),
        }
    return {
        "Steps": settings.steps,
        "Sampler": find_sampler(settings.sampler or maker.model.scheduler["_class_name"]).title,
        "CFG scale": settings.guidance,
        "Seed": seed,
        "Size": format_size(settings.size),
        "Model hash": maker.model.content[:10],
        "Model": maker.model.name,
        **own,
        "Engines": maker.target.name,
        "Version": f"sdxl-trt {__version__}",
    }


def _corner(corner: tuple[int, int]) -> str | None:
    return f"{corner[0]},{corner[1]}" if any(corner) else None
