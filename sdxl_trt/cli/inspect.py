"""`sdxl-trt inspect`: what a bundle holds, or how a picture was made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import click

from sdxl_trt.bundle import Blob, BlobStore, Target, not_pulled, read_manifest
from sdxl_trt.bundle.presence import Absence
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
    absent = not_pulled(manifest, path)
    here = [target for target in manifest.targets if target.name not in absent]
    if verify:  # where no target is whole, what is missing is found
        for blob in manifest.blobs(*here).values():
            BlobStore(path).check(blob, "a file of the bundle")
    key = signer(path)
    if as_json:
        print_json(dataclasses.asdict(manifest) | {"not_pulled": list(absent), "signed_with": key})
        return
    click.echo(f"signed with {key}" if key else "unsigned")
    _show_model(manifest.model, manifest.files, f", built by sdxl-trt {manifest.tool}")
    if manifest.refiner:
        _show_model(manifest.refiner.model, manifest.refiner.files, "")
    for target in manifest.targets:
        _show_target(target, absent.get(target.name))
    checked = ", every hash right" if verify else ""
    click.echo(f"\n{_size(manifest.blobs(*here) if here else {})} here{checked}; {_size(manifest.blobs())} in all")


def _size(blobs: Mapping[str, Blob]) -> str:
    """Number and bytes of files, chunks that several of them have counted once."""
    parts = {part.sha256: part.bytes for blob in blobs.values() for part in blob.parts}
    return f"{len(blobs)} files, {sum(parts.values()):,} bytes"


def _show_model(model: ModelSpec, files: Mapping[str, Blob], more: str) -> None:
    click.echo(f"{model.name}  SDXL {model.kind}, content {model.content[:16]}{more}")
    licences = [name for name in files if name.startswith("licence/")]
    click.echo(f"licence: {', '.join(licences) or 'the checkpoint came without one'}")


def _show_target(target: Target, absent: Absence | None) -> None:
    profile = target.profile
    low, high = (f"{getattr(profile.width, e) * 8}x{getattr(profile.height, e) * 8}" for e in ("min", "max"))
    click.echo(f"\n{target.name}: {target.flavour} {target.flavour_version}, {target.processor}, {target.precision}")
    click.echo(f"  sizes {low} to {high}, up to {profile.slots.max} pictures at once")
    if profile.vae_tile:
        edge = profile.vae_tile * 8
        click.echo(f"  the VAE takes up to {edge}x{edge} at once, and larger pictures in tiles")
    click.echo(f"  {'accepted: ran and agreed with its reference' if target.accepted else 'built: never run yet'}")
    if absent:
        click.echo(f"  {absent}")
    models = {entry.file for entry in target.engines.values()}
    for name, engine in target.all_engines():
        weights = sum(blob.bytes for blob in engine.weights)
        more = f" in {len(engine.file.chunks)} chunks" if engine.file.chunks else ""
        more += f" + weights {weights:,}" if weights else ""
        shared = ", the model's own" if name not in target.engines and engine.file in models else ""
        click.echo(f"  {name:24} {engine.file.bytes:>12,} bytes{more}  key {engine.key[:12]}{shared}")
