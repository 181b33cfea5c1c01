"""`sdxl-trt ship`: bundles on their way from who builds them to who runs them."""

from __future__ import annotations

import importlib

import click

COMMANDS = {
    "push": "sdxl_trt.cli.ship.push",
    "pull": "sdxl_trt.cli.ship.pull",
    "sign": "sdxl_trt.cli.ship.sign",
    "verify": "sdxl_trt.cli.ship.sign",
    "explain": "sdxl_trt.cli.ship.explain",
}
"""Commands and the modules that hold them, in the order they are listed."""


class _Lazy(click.Group):
    """As the group above: a command is imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name]), f"{cmd_name}_command")
        return command


@click.command("ship", cls=_Lazy)
def ship_command() -> None:
    """Send bundles, fetch what one host needs of them, sign and check them, and say which hosts they are for."""
