"""Engine libraries: which are here, missing or broken, and what runs and builds with them. And what exports."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sdxl_trt.cli.build import needing_torch
from sdxl_trt.errors import FlavourUnavailable

if TYPE_CHECKING:
    from sdxl_trt.bundle import Host
    from sdxl_trt.engines.flavours import Flavour

RIVALS = ("onnxruntime", "onnxruntime-gpu")
"""Both write the module `onnxruntime`."""


def libraries(hosts: Mapping[str, Host]) -> dict[str, dict[str, Any]]:
    """By flavour: the version, or why there is none; devices that its engines run on; why none can be built."""
    from sdxl_trt.engines.flavours import FLAVOURS, available_flavours

    builds = available_flavours()
    return {
        name: _library(flavour)
        | {
            "runs_on": [device for device, host in hosts.items() if name in host.flavours],
            "build_error": None if isinstance(reason := builds[name], str) else reason.as_dict(),
        }
        for name, flavour in FLAVOURS.items()
    }


def _library(flavour: Flavour) -> dict[str, Any]:
    from sdxl_trt.engines.flavours import check_version
    from sdxl_trt.libraries import require

    try:
        version = check_version(flavour, require(flavour.module, f"run {flavour.name} engines"))
    except FlavourUnavailable as error:
        cause = error.__cause__
        missing = isinstance(cause, ModuleNotFoundError) and cause.name == flavour.module
        return {"state": "missing" if missing else "broken", "version": None, "error": error.as_dict()}
    return {"state": "found", "version": version, "error": None}


def exporting() -> dict[str, Any]:
    """Why no model can be exported."""
    try:
        with needing_torch():
            importlib.import_module("sdxl_trt.export.run")
    except FlavourUnavailable as error:
        return {"error": error.as_dict()}
    return {"error": None}


def clash() -> FlavourUnavailable | None:
    """Installations that break each other."""
    here = [name for name in RIVALS if any(importlib.metadata.distributions(name=name))]
    if len(here) < len(RIVALS):
        return None
    return FlavourUnavailable(
        f"{' and '.join(RIVALS)} overwrite each other's files",
        got="both are installed",
        expected="one of them",
        fix=f"pip uninstall {' '.join(RIVALS)}, then pip install 'sdxl-trt[cpu]' or 'sdxl-trt[ort-cuda]'",
    )
