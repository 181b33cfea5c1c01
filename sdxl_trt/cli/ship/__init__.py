"""`sdxl-trt ship`: bundles on their way from who builds them to who runs them."""

from __future__ import annotations

import click

from sdxl_trt.cli.lazy import LazyGroup

COMMANDS = {
    "push": "sdxl_trt.cli.ship.push",
    "pull": "sdxl_trt.cli.ship.pull",
    "sign": "sdxl_trt.cli.ship.sign",
    "verify": "sdxl_trt.cli.ship.sign",
    "explain": "sdxl_trt.cli.ship.explain",
}
"""Commands and the modules that hold them, in the order they are listed."""


@click.command("ship", cls=LazyGroup, modules=COMMANDS)
def ship_command() -> None:
    """Send bundles, fetch what one host needs of them, sign and check them, and say which hosts they are for."""
