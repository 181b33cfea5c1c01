"""`sdxl-trt store`: the folder of bundles, which is the store: what they take, what can go, whether they are sound."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sdxl_trt.bundle import MANIFEST_NAME, BlobStore, read_manifest
from sdxl_trt.bundle.housekeeping import Verifier, begun_bundles, collect, disk_bytes, use
from sdxl_trt.cli import json_option, print_json
from sdxl_trt.cli.progress import shown_progress
from sdxl_trt.errors import SdxlTrtError
from sdxl_trt.paths import bundles_folder

Row = dict[str, Any]


@click.group("store")
def store_command() -> None:
    """The bundles of a folder: they share equal files, so what each takes depends on the others."""


def folder_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """FOLDER, by default that of `build`."""
    return click.argument("folder", required=False, type=click.Path(path_type=Path))(command)


@store_command.command("list")
@folder_argument
@json_option
def list_command(folder: Path | None, as_json: bool) -> None:
    """Show what each bundle in FOLDER takes, and what it shares.

    Content counts every target as if it were alone; on disk is what is there; alone is what deleting the bundle frees.
    FOLDER is the data folder of `build` unless given.
    """
    place = folder or bundles_folder()
    bundles = begun_bundles(place)
    rows = [_each(bundle, _listed) for bundle in bundles]
    disk = disk_bytes(bundles)
    if as_json:
        print_json({"folder": str(place), "bundles": rows, "disk": disk})
        return
    click.echo(f"{'bundle':40}{'content':>16}{'on disk':>16}{'alone':>16}{'unused':>16}")
    for row in rows:
        click.echo(_line(row))
    click.echo(f"{place}: {len(rows)} bundles, {_mb(disk)} on disk")


def _listed(bundle: Path) -> Row:
    manifest = read_manifest(bundle) if (bundle / MANIFEST_NAME).exists() else None
    found = use(bundle, manifest)
    return {
        "model": manifest.model.name if manifest else None,
        "targets": [target.name for target in manifest.targets] if manifest else [],
        "not_pulled": list(found.absent),
        **{name: getattr(found, name) for name in ("content", "disk", "alone", "unused")},
    }


def _line(row: Row) -> str:
    name = Path(row["bundle"]).name
    if row["error"]:
        return f"{name:40}  {row['error']['what']}: {row['error']['got']}"
    sizes = "".join(f"{_mb(row[key]):>16}" for key in ("content", "disk", "alone", "unused"))
    if row["model"] is None:
        return f"{name:40}{sizes}\n  begun, not finished: what will build or pull it goes on; `store gc` removes it"
    lines = [f"  {target}" + (": not pulled" if target in row["not_pulled"] else "") for target in row["targets"]]
    return "\n".join([f"{name:40}{sizes}", *lines])


@store_command.command("gc")
@folder_argument
@json_option
def gc_command(folder: Path | None, as_json: bool) -> None:
    """Remove files that no bundle in FOLDER names, and what builds and pulls that did not finish left.

    Equal files of several bundles become one. Bundles that are being written, and those that cannot be read, are left
    as they are; the exit status is then 1.
    """
    place = folder or bundles_folder()
    stores, rows = list[BlobStore](), list[Row]()
    for bundle in begun_bundles(place):
        rows.append(_each(bundle, lambda bundle: dataclasses.asdict(collect(bundle, stores))))
        stores.append(BlobStore(bundle))
    if as_json:
        print_json({"folder": str(place), "bundles": rows})
    else:
        for row in rows:
            _show_collected(row)
    _exit(rows)


def _show_collected(row: Row) -> None:
    if row["error"]:
        click.echo(f"{row['bundle']}: left as it is: {row['error']['what']} ({row['error']['got']})", err=True)
    else:
        click.echo(f"{row['bundle']}: {_mb(row['freed'])} removed, {_mb(row['linked'])} shared now")


@store_command.command("verify")
@folder_argument
@json_option
def verify_command(folder: Path | None, as_json: bool) -> None:
    """Read every file of the bundles in FOLDER and check its hash; exit status 1 if anything is wrong."""
    place = folder or bundles_folder()
    with shown_progress(quiet=True) as progress:
        verifier = Verifier(progress)

        def verified(bundle: Path) -> Row:
            return {"errors": [error.as_dict() for error in verifier.verify(bundle, read_manifest(bundle))]}

        rows = [_each(bundle, verified) for bundle in begun_bundles(place) if (bundle / MANIFEST_NAME).exists()]
    for row in rows:
        row["errors"] = row.pop("errors", []) + [error for error in (row.pop("error"),) if error]
    if as_json:
        print_json({"folder": str(place), "bundles": rows})
    for row in () if as_json else rows:
        click.echo(f"{row['bundle']}: " + (f"{len(row['errors'])} errors" if row["errors"] else "every hash right"))
        for error in row["errors"]:
            click.echo(f"  {error['what']}\n    got: {error['got']}\n    fix: {error['fix']}")
    sys.exit(1 if any(row["errors"] for row in rows) else 0)


def _each(bundle: Path, work: Callable[[Path], Row]) -> Row:
    """What is said of a bundle; a failure of one does not hide the others."""
    try:
        return {"bundle": str(bundle), "error": None} | work(bundle)
    except SdxlTrtError as error:
        return {"bundle": str(bundle), "error": error.as_dict()}


def _exit(rows: list[Row]) -> None:
    sys.exit(1 if any(row["error"] for row in rows) else 0)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
