"""The public keys that a command is told to trust."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sdxl_trt.trust import KEY_VARIABLE


def key_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--key PUB`: trusted as long as the command runs, beside the keys of this host and by its other processes too."""
    return click.option(
        "--key",
        multiple=True,
        metavar="PUB",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_trust,
        help="Trust this public key too, and refuse what no key vouches for (docs/trust.md).",
    )(command)


def _trust(ctx: click.Context, _: click.Parameter, keys: tuple[Path, ...]) -> None:
    if not keys:
        return
    before = os.environ.get(KEY_VARIABLE, "")
    os.environ[KEY_VARIABLE] = os.pathsep.join([*(str(key.absolute()) for key in keys), *([before] if before else [])])

    @ctx.call_on_close
    def restore() -> None:
        os.environ[KEY_VARIABLE] = before
