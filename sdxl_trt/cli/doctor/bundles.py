"""Whom this host trusts, what the bundles of the data folder can do on each device, and what can make a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdxl_trt.bundle.hosts import ON_CPU
from sdxl_trt.cli.models import newest_first
from sdxl_trt.errors import NoTargetForHost, OutOfMemory, SdxlTrtError

if TYPE_CHECKING:
    from sdxl_trt.bundle import Host, Manifest


def bundles(hosts: Mapping[str, Host], free: Mapping[str, int]) -> list[dict[str, Any]]:
    """The newest first; with the bytes that are free on GPUs, by device."""
    return [_bundle(folder, hosts, free) for folder in newest_first()]


def keys() -> dict[str, Any]:
    """The public keys of this host, and why they cannot be used."""
    from sdxl_trt.trust import host_keys

    try:
        return {
            "trusted": [{"fingerprint": key.fingerprint, "source": key.source} for key in host_keys()],
            "error": None,
        }
    except SdxlTrtError as error:
        return {"trusted": [], "error": error.as_dict()}


def _bundle(folder: Path, hosts: Mapping[str, Host], free: Mapping[str, int]) -> dict[str, Any]:
    from sdxl_trt.bundle import read_manifest
    from sdxl_trt.trust import signer

    found: dict[str, Any] = {"path": str(folder), "model": None, "signed_with": None, "devices": {}, "error": None}
    try:
        manifest, key = read_manifest(folder), signer(folder)
    except SdxlTrtError as error:
        return found | {"error": error.as_dict()}
    devices = {device: _use(manifest, folder, host, free.get(device)) for device, host in hosts.items()}
    return found | {"model": manifest.model.name, "signed_with": key, "devices": devices}


def _use(manifest: Manifest, folder: Path, host: Host, free: int | None) -> dict[str, Any]:
    """The target that a device gets, whether it ever ran, and its memory policy; or what would help.

    And why not the others.
    """
    from sdxl_trt.bundle import not_pulled
    from sdxl_trt.bundle.hosts import refusal
    from sdxl_trt.runtime.host import fitting_target
    from sdxl_trt.runtime.policy import fitting

    refused = {name: str(absence) for name, absence in not_pulled(manifest, folder).items()}
    refused |= {target.name: reason for target in manifest.targets if (reason := refusal(target, host))}
    try:
        target = fitting_target(manifest, folder, host)
    except NoTargetForHost as error:
        return _unusable(refused, error.fix)
    refiner = manifest.refiner.model if manifest.refiner and target.refiner else None
    try:
        memory = None if free is None else str(fitting(target, (manifest.model, refiner), free))
    except OutOfMemory as error:
        return _unusable(refused | {target.name: f"{error.what}: {error.got}; needs {error.expected}"}, error.fix)
    return {"target": target.name, "accepted": target.accepted, "memory": memory, "refused": refused, "fix": ""}


def _unusable(refused: dict[str, str], fix: str) -> dict[str, Any]:
    return {"target": None, "accepted": None, "memory": None, "refused": refused, "fix": fix}


def picture(report: Mapping[str, Any]) -> dict[str, str | None] | None:
    """What a picture can be made with: the newest bundle that runs here, on a GPU rather than on the processor.

    Where there is none, the demo model's if that can be built and run on the processor; its target is not there yet.
    """
    for bundle in report["bundles"]:
        for device, use in sorted(bundle["devices"].items(), key=lambda item: item[0] == "cpu"):
            if use["target"]:
                return {"bundle": bundle["path"], "device": device, "target": use["target"]}
    return None if demo_obstacles(report) else {"bundle": "demo", "device": "cpu", "target": None}


def demo_obstacles(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Errors that keep the demo model's bundle from being built and run on the processor."""
    library = report["libraries"][ON_CPU]
    errors = (library["error"] or library["build_error"], report["export"]["error"], report["disk"]["bundles"]["error"])
    return [error for error in errors if error]
