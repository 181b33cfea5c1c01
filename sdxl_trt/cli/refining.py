"""What `sdxl-trt run` can be told about a bundle's refiner, and how a picture's file says it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sdxl_trt.runtime import Resolved
    from sdxl_trt.runtime.maker import Maker

_SETTINGS = ("refiner_start", "refiner_strength", "refiner_steps", "refiner_guidance", "refiner_sampler")


def refiner_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of the refiner."""
    for option in (
        click.option("--negative-aesthetic-score", type=float, default=2.5, help="The same of the negative prompt."),
        click.option(
            "--aesthetic-score", type=float, default=6.0, show_default=True, help="0 to 10: what a refiner is told."
        ),
        click.option("--refiner-sampler", help="[default: that of --sampler, else its own]"),
        click.option("--refiner-guidance", type=float, help="[default: the model's]"),
        click.option("--refiner-steps", type=int, help="Of a whole run of it.  [default: the model's]"),
        click.option("--refiner-strength", type=float, help="0 to 1: it changes the finished picture so far."),
        click.option("--refiner-start", type=float, help="0 to 1: the bundle's refiner takes over there, as at 0.8."),
    ):
        command = option(command)
    return command


def asks_for_refiner(settings: dict[str, Any]) -> bool:
    """Any of its options is given; else a bundle's refiner need not be opened."""
    return any(settings[name] is not None for name in _SETTINGS)


def refiner_shown(settings: Resolved | None, maker: Maker) -> dict[str, Any]:
    """Settings by the names that A1111's users know; ours where it has none."""
    if settings is None or maker.refiner is None:
        return {}
    from sdxl_trt.runtime.samplers import find_sampler

    model = maker.refiner
    return {
        "Refiner": f"{model.name} [{model.content[:10]}]",
        "Refiner switch at": settings.denoising_start,
        "Refiner strength": settings.strength,
        "Refiner steps": settings.steps,
        "Refiner sampler": find_sampler(settings.sampler or model.scheduler["_class_name"]).title,
        "Refiner CFG scale": settings.guidance,
        "Aesthetic score": settings.micro.aesthetic_score,
        "Negative aesthetic score": settings.negative_micro.aesthetic_score,
    }
