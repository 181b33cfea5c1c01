"""What `sdxl-trt run` can be told about a bundle's refiner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

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
