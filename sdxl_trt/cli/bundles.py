"""Which bundle a command works on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sdxl_trt.cli.models import newest_first
from sdxl_trt.demo_bundle import bundle_folder, demo_bundle
from sdxl_trt.errors import NoTargetForHost
from sdxl_trt.paths import bundles_folder

T = TypeVar("T")


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
