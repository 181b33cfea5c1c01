"""Which bundle a command works on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from sdxl_trt.cli.models import newest_first
from sdxl_trt.demo_bundle import bundle_folder, demo_bundle
from sdxl_trt.errors import NoTargetForHost
from sdxl_trt.paths import bundles_folder
from sdxl_trt.ship.references import Reference, is_reference, parse_reference

T = TypeVar("T")


class BundleType(click.ParamType["Path | Reference"]):
    """A bundle's folder, 'demo', or where a bundle is pulled from."""

    name = "bundle"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | Reference:  # noqa: ARG002
        """Parse; what is wrong is told as any wrong request is."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]  # converted before
        return parse_reference(value) if is_reference(value) and not Path(value).is_dir() else Path(value)


def open_bundle(bundle: Path | None, load: Callable[[Path], T]) -> tuple[T, Path]:
    """What `load` makes of the bundle given (or a demo model's name), of the newest that fits, or else of the demo's.

    Raises:
        NoTargetForHost: none of those that are there runs here; and whatever else `load` raises.
        BuildError: the demo model's could not be built.
    """
    if bundle is not None:
        folder = bundle_folder(bundle)
        return load(folder), folder
    refused = []
    for folder in newest_first():
        try:
            return load(folder), folder
        except NoTargetForHost as error:
            refused.append(error)
    if refused:
        raise NoTargetForHost(
            f"none of the {len(refused)} bundles in {bundles_folder()} runs on this host",
            got="; ".join(f"{error.what}: {error.got}" for error in refused),
            expected=refused[0].expected,
            fix=refused[0].fix,
        )
    folder = demo_bundle()
    return load(folder), folder
