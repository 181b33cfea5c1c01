"""What `sdxl-trt run` can be told about pictures to start from and about samplers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path, dir_okay=False)
SAMPLER_OPTIONS = ("spacing", "sigmas", "prediction", "eta", "solver_order", "zero_snr")
"""Those of `SamplerOptions` that the command line has."""


def image_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of image-to-image and inpainting."""
    for option in (
        click.option("--only-masked", "mask_padding", type=int, metavar="PADDING", help="Work on the mask alone."),
        click.option("--mask-soft", is_flag=True, help="Grey keeps in part; else the mask is cut at the middle."),
        click.option("--mask-invert", is_flag=True, help="Black is painted anew."),
        click.option("--mask-blur", type=float, default=0.0, help="Standard deviation in pixels."),
        click.option("--mask", type=FILE, help="White is painted anew (inpainting)."),
        click.option("--strength", type=float, help="0 to 1: how far from it.  [default: 0.3; with a mask 0.9999]"),
        click.option("--image", type=FILE, help="Picture to start from (image-to-image)."),
    ):
        command = option(command)
    return command


def vae_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of tiles."""
    tiling = "auto: the VAE has in tiles what its engines do not take whole; on: what is larger than a tile; or off."
    for option in (
        click.option("--vae-tile", type=int, metavar="N", help="Edge of tiles in pixels.  [default: the VAE's own]"),
        click.option("--vae-tiling", default="auto", show_default=True, metavar="HOW", help=tiling),
    ):
        command = option(command)
    return command


def sampler_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of the sampler, over what the checkpoint says."""
    for option in (
        click.option("--rng", default="cpu", show_default=True, help="Whose torch seeds: cpu, or cuda."),
        click.option("--zero-snr/--no-zero-snr", default=None, help="Rescale betas to zero terminal SNR."),
        click.option("--solver-order", type=int, help="1 to 3, of DPM-Solver, DEIS and UniPC."),
        click.option("--eta", type=float, help="0 to 1: fresh noise of DDIM; gamma of TCD."),
        click.option("--prediction", help="epsilon, v_prediction or sample."),
        click.option("--sigmas", help="trained, karras, exponential or beta."),
        click.option("--spacing", help="Of timesteps: linspace, leading or trailing."),
        click.option("--sampler", help="See `sdxl-trt samplers`.  [default: the checkpoint's]"),
    ):
        command = option(command)
    return command


def take_sampler_options(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a request, those of the sampler gathered in its `options`."""
    from sdxl_trt.runtime.samplers import SamplerOptions

    options = SamplerOptions(**{name: settings[name] for name in SAMPLER_OPTIONS})
    others = {name: value for name, value in settings.items() if name not in SAMPLER_OPTIONS}
    return others | {"options": options}
