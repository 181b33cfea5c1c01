"""`sdxl-trt ship explain`: which hosts can use a bundle, and whether this one can."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdxl_trt.bundle import Manifest, Target, not_pulled, read_manifest
from sdxl_trt.bundle.hosts import GRAPHS, ON_CPU, ON_CUDA, refusal
from sdxl_trt.bundle.presence import Absence
from sdxl_trt.cli import json_option, print_json
from sdxl_trt.cli.trust import key_option
from sdxl_trt.errors import NoTargetForHost, NotTrusted
from sdxl_trt.gpus import Gpu, able_flavours, load_gpus
from sdxl_trt.trust import host_keys, signer

if TYPE_CHECKING:
    from sdxl_trt.bundle import Host

ARM = "aarch64"
"""The processor that chips of the catalogue have, which are processor and GPU in one."""


EXTRAS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx", ON_CPU: "cpu", ON_CUDA: "ort-cuda"}
"""The extra of this package that brings the library of a flavour."""


@click.command("explain")
@click.argument("bundle", type=click.Path(path_type=Path))
@key_option
@json_option
def explain_command(bundle: Path, as_json: bool) -> None:
    """Say for every target of BUNDLE which hosts can use it, and whether this one can."""
    explained = explain(bundle)
    if as_json:
        print_json(explained)
    else:
        click.echo("\n".join(page(explained)))


def explain(bundle: Path) -> dict[str, Any]:
    """What --json prints.

    Raises:
        BundleError: it is damaged, hostile or of an unknown version; that it is not trusted here is told.
        KeyFileError: this host has keys that cannot be used.
    """
    from sdxl_trt.cli.doctor.machine import gpus
    from sdxl_trt.runtime.host import this_host

    host_keys()  # of which none that cannot be used may pass for a reason to refuse the bundle
    manifest = read_manifest(bundle, signed=False)
    hosts = {"cpu": this_host(), **gpus()[1]}
    untrusted, absent = _untrusted(bundle), not_pulled(manifest, bundle)
    return {
        "bundle": str(bundle),
        "model": manifest.model.name,
        "created": manifest.created,
        "schema": manifest.schema,
        "signed_with": signer(bundle) if untrusted is None else None,
        "untrusted": untrusted,
        "targets": [describe(target, hosts, absent.get(target.name)) for target in manifest.targets],
        "devices": {} if untrusted else {device: _use(manifest, bundle, host) for device, host in hosts.items()},
    }


def _untrusted(bundle: Path) -> dict[str, str] | None:
    """Why this host refuses the bundle, whatever is in it."""
    try:
        read_manifest(bundle)
    except NotTrusted as error:
        return error.as_dict()
    return None


def describe(target: Target, hosts: Mapping[str, Host], absence: Absence | None) -> dict[str, Any]:
    """A target, what hosts need for it, and why devices of this one cannot use it (none: they can)."""
    profile, blobs = target.profile, set(target.blobs())
    low, high = ([getattr(axis, end) * 8 for axis in (profile.width, profile.height)] for end in ("min", "max"))
    return {
        "name": target.name,
        "flavour": target.flavour,
        "version": target.flavour_version,
        "later_versions": target.flavour in GRAPHS,
        "extra": EXTRAS.get(target.flavour),
        "processor": target.processor,
        "sms": list(target.sms),
        "gpus": [gpu.key for gpu in load_gpus().values() if serves(target, gpu)],
        "precision": target.precision,
        "accepted": target.accepted,
        "refiner": bool(target.refiner),
        "smallest": low,
        "largest": high,
        "pictures": profile.slots.max,
        "bytes": sum(blob.bytes for blob in blobs),
        "not_pulled": str(absence) if absence else None,
        "refused": {device: refusal(target, host) for device, host in hosts.items()},
    }


def serves(target: Target, gpu: Gpu) -> bool:
    """A GPU of the catalogue can run a target's engines, in a host of its processor and with the library."""
    fits = not target.sms or gpu.sm in target.sms
    return fits and target.flavour in able_flavours(gpu.sm) and (gpu.form != "soc" or target.processor == ARM)


def _use(manifest: Manifest, bundle: Path, host: Host) -> dict[str, str | None]:
    """The target that a device gets; or what would help."""
    from sdxl_trt.runtime.host import fitting_target

    try:
        return {"target": fitting_target(manifest, bundle, host).name, "fix": None}
    except NoTargetForHost as error:
        return {"target": None, "fix": error.fix}


def page(explained: Mapping[str, Any]) -> list[str]:
    """The same in lines."""
    signed = f"signed with {explained['signed_with']}" if explained["signed_with"] else "unsigned"
    lines = [f"{explained['bundle']}: {explained['model']}, made {explained['created']}"]
    if explained["untrusted"]:
        lines += [f"this host refuses it: {explained['untrusted']['what']}: {explained['untrusted']['got']}"]
    else:
        lines += [signed]
    for row in explained["targets"]:
        lines += ["", *_target_lines(row)]
    lines += ["", *(_device_line(device, use) for device, use in explained["devices"].items())]
    return lines


def _target_lines(row: Mapping[str, Any]) -> list[str]:
    later = " or later" if row["later_versions"] else ", this very version"
    extra = f" (pip install 'sdxl-trt[{row['extra']}]')" if row["extra"] else ""
    low, high = ("x".join(map(str, row[end])) for end in ("smallest", "largest"))
    sms = ", ".join(f"SM {sm}" for sm in row["sms"])
    gpus = f"{sms or 'NVIDIA GPUs'}: {', '.join(row['gpus']) or 'none of the catalogue'}"
    on = "the processor" if row["flavour"] == ON_CPU else gpus
    return [
        f"{row['name']}: {'accepted' if row['accepted'] else 'built: never run yet'}"
        + (f"; {row['not_pulled']}" if row["not_pulled"] else ""),
        f"  runs on      {on}",
        f"  needs        {row['processor']}, {row['flavour']} {row['version']}{later}{extra}",
        f"  makes        {low} to {high}, up to {row['pictures']} pictures at once, {row['precision']}"
        + (", with a refiner" if row["refiner"] else ""),
        f"  takes        {row['bytes']:,} bytes",
        *(f"  {device:12} {'yes' if reason is None else f'no: {reason}'}" for device, reason in row["refused"].items()),
    ]


def _device_line(device: str, use: Mapping[str, Any]) -> str:
    return f"{device} runs {use['target']}" if use["target"] else f"{device} runs nothing of it. fix: {use['fix']}"
