"""`sdxl-trt inspect`: what a bundle holds, or how a picture was made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import click

from sdxl_trt.bundle import Blob, BlobStore, Target, read_manifest
from sdxl_trt.cli import json_option, print_json
from sdxl_trt.cli.trust import key_option
from sdxl_trt.errors import UsageError
from sdxl_trt.spec import ModelSpec
from sdxl_trt.trust import signer


@click.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--verify", is_flag=True, help="Also read every file of the bundle and check its hash.")
@key_option
@json_option
def inspect_command(path: Path, verify: bool, as_json: bool) -> None:
    """Show what is in a bundle (PATH a folder), or how a picture was made (PATH a PNG file)."""
    if path.is_file():
        _inspect_picture(path, as_json)
    elif path.is_dir():
        _inspect_bundle(path, verify, as_json)
    else:
        raise UsageError(f"there is no {path}", expected="a bundle's folder, or a PNG file", fix="check the path")


def _inspect_picture(path: Path, as_json: bool) -> None:
    from sdxl_trt.runtime.png import read_png

    parameters = read_png(path)
    if as_json:
        print_json(dataclasses.asdict(parameters))
        return
    click.echo(f"Prompt: {parameters.prompt}")
    if parameters.negative_prompt:
        click.echo(f"Negative prompt: {parameters.negative_prompt}")
    for name, value in parameters.settings.items():
        if value is not None:
            click.echo(f"{name}: {value}")


def _inspect_bundle(path: Path, verify: bool, as_json: bool) -> None:
    manifest = read_manifest(path)
    store, blobs = BlobStore(path), manifest.blobs()
    if verify:
        for blob in blobs.values():
            store.check(blob, "a file of the bundle")
    key = signer(path)
    if as_json:
        print_json(dataclasses.asdict(manifest) | {"signed_with": key})
        return
    click.echo(f"signed with {key}" if key else "unsigned")
    _show_model(manifest.model, manifest.files, f", built by sdxl-trt {manifest.tool}")
    if manifest.refiner:
        _show_model(manifest.refiner.model, manifest.refiner.files, "")
    for target in manifest.targets:
        _show_target(target)
    total = sum(blob.bytes for blob in blobs.values())
    checked = ", every hash right" if verify else ""
    click.echo(f"\n{len(blobs)} files, {total:,} bytes in all{checked}")


def _show_model(model: ModelSpec, files: Mapping[str, Blob], more: str) -> None:
    click.echo(f"{model.name}  SDXL {model.kind}, content {model.content[:16]}{more}")
    licences = [name for name in files if name.startswith("licence/")]
    click.echo(f"licence: {', '.join(licences) or 'the checkpoint came without one'}")


def _show_target(target: Target) -> None:
    profile = target.profile
    low, high = (f"{getattr(profile.width, e) * 8}x{getattr(profile.height, e) * 8}" for e in ("min", "max"))
    click.echo(f"\n{target.name}: {target.flavour} {target.flavour_version}, {target.processor}, {target.precision}")
    click.echo(f"  sizes {low} to {high}, up to {profile.slots.max} pictures at once")
    if profile.vae_tile:
        edge = profile.vae_tile * 8
        click.echo(f"  the VAE takes up to {edge}x{edge} at once, and larger pictures in tiles")
    click.echo(f"  {'accepted: ran and agreed with its reference' if target.accepted else 'built: never run yet'}")
    models = {entry.file for entry in target.engines.values()}
    for name, engine in target.all_engines():
        weights = sum(blob.bytes for blob in engine.weights)
        more = f" + weights {weights:,}" if weights else ""
        shared = ", the model's own" if name not in target.engines and engine.file in models else ""
        click.echo(f"  {name:24} {engine.file.bytes:>12,} bytes{more}  key {engine.key[:12]}{shared}")
