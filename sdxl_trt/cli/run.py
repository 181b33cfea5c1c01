"""`sdxl-trt run`: a prompt becomes pictures."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdxl_trt.cli import json_option
from sdxl_trt.cli.bundles import BundleType
from sdxl_trt.cli.devices import device_options, load_maker
from sdxl_trt.cli.pictures import image_options, sampler_options, take_sampler_options, vae_options
from sdxl_trt.cli.previews import shown_previews
from sdxl_trt.cli.progress import shown_progress
from sdxl_trt.cli.prompts import Word, load_words, prompt_options
from sdxl_trt.cli.refining import asks_for_refiner, refiner_options
from sdxl_trt.cli.remote import chosen_server, run_there, server_options
from sdxl_trt.cli.trust import key_option
from sdxl_trt.cli.writing import check_target, free_name, print_report, write_pictures
from sdxl_trt.errors import UsageError
from sdxl_trt.ship.references import Reference
from sdxl_trt.spec import parse_size

if TYPE_CHECKING:
    from sdxl_trt.runtime import Request, Result
    from sdxl_trt.runtime.described import Origin

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
@server_options
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
    server: str | None,
    api_key_file: Path | None,
    plain_http: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Make pictures of PROMPT and write them as PNG files that say how they were made."""
    from sdxl_trt.runtime import Request
    from sdxl_trt.runtime.described import Origin

    started = time.monotonic()
    target, seeds = free_name() if output is None else output, _seeds(seed, images)
    check_target(target)
    remote = chosen_server(server, api_key_file, plain_http)
    if remote is not None:
        run_there(remote, prompt, seeds, target, settings, as_json)
        return
    request = Request(prompt=prompt, seed=seeds, **take_sampler_options(settings))
    maker, folder = load_maker(
        bundle, device=device, devices=devices, threads=threads, refiner=asks_for_refiner(settings), memory=memory
    )
    with maker:
        words = load_words(maker, embedding)
        loaded = time.monotonic()
        with shown_previews(target, preview_every) as callback:
            with shown_progress(quiet=True) as progress:
                result = maker.run(request, progress=progress, callback=callback)
            origin = Origin(model=maker.model, target=maker.target.name, refiner=maker.refiner, words=words)
            files = _write(result, request, origin, target)
        finished = time.monotonic()
    report = {
        "bundle": str(folder),
        "target": maker.target.name,
        "memory": dataclasses.asdict(maker.memory),
        "files": [str(file) for file in files],
        "seeds": list(result.seeds),
        "seconds": {"load": round(loaded - started, 3), "pictures": round(finished - loaded, 3)},
    }
    print_report(report, f"{folder} ({maker.target.name})\nmemory: {maker.memory}", as_json)


def _seeds(seeds: tuple[int, ...], images: int | None) -> Sequence[int] | None:
    if images is None:
        return seeds or None
    if len(seeds) > 1:
        raise UsageError("give several seeds or a number of images, not both", fix="--seed 7 -n 4 makes 7, 8, 9 and 10")
    import secrets

    return [seeds[0] + i for i in range(images)] if seeds else [secrets.randbits(32) for _ in range(images)]


def _write(result: Result, request: Request, origin: Origin, target: Path) -> list[Path]:
    import numpy as np

    from sdxl_trt.runtime.described import describe
    from sdxl_trt.runtime.png import encode_png

    shown = ((image, describe(result, index, request, origin)) for index, image in enumerate(result.images))
    return write_pictures(target, result.seeds, (encode_png(np.asarray(image), told) for image, told in shown))
