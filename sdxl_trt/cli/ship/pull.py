"""`sdxl-trt ship pull`, and pulling before something is run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from sdxl_trt.bundle import MANIFEST_NAME
from sdxl_trt.cli import json_option, print_json
from sdxl_trt.cli.progress import shown_progress
from sdxl_trt.cli.ship.push import ReferenceType, plain_http_option
from sdxl_trt.cli.trust import key_option
from sdxl_trt.errors import Unreachable
from sdxl_trt.paths import bundles_folder
from sdxl_trt.ship.choosing import Choose, choose_for, choose_for_gpu
from sdxl_trt.ship.pull import Pulled, is_current, pull
from sdxl_trt.ship.references import Reference
from sdxl_trt.ship.remote import open_remote

_OTHER_HOST = (
    "--gpu NAME fetches what another host needs (`sdxl-trt gpus` lists them); or build and push a target for it"
)


@click.command("pull")
@click.argument("reference", type=ReferenceType())
@click.option("--gpu", metavar="NAME", help="Of the host that it is for, or 'cpu'.  [default: this host's]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder.  [default: one in the bundles folder]")
@click.option("--allow-downgrade", is_flag=True, help="Take a signed bundle that is older than what came before.")
@key_option
@plain_http_option
@json_option
def pull_command(
    reference: Reference,
    gpu: str | None,
    output: Path | None,
    allow_downgrade: bool,
    plain_http: bool,
    as_json: bool,
) -> None:
    """Fetch what one host needs of a bundle.

    That is engines for its GPU, else portable ones, else onnxruntime's. What is in the folder already is checked and
    not fetched; what other bundles of this machine have is shared. Where a public key is configured (or given),
    nothing that it does not vouch for is taken.
    """
    folder = output or bundles_folder() / reference.folder_name
    choose = choose_for_gpu(gpu) if gpu else choose_for(_hosts(), fix=_OTHER_HOST)
    with shown_progress() as progress, open_remote(reference, write=False, plain_http=plain_http) as remote:
        pulled = pull(reference, remote, folder, choose, allow_downgrade=allow_downgrade, progress=progress)
    if as_json:
        print_json({"reference": str(reference), "bundle": str(folder)} | _as_dict(pulled))
        return
    click.echo(str(folder))
    for line in _lines(pulled):
        click.echo(line)


def _hosts() -> list[Any]:
    """What this machine can run on: its GPUs, then its processor."""
    from sdxl_trt.cli.doctor.machine import gpus
    from sdxl_trt.runtime.host import this_host

    return [*gpus()[1].values(), this_host()]


def _as_dict(pulled: Pulled) -> dict[str, Any]:
    choice = {"target": pulled.choice.target.name, "reason": pulled.choice.reason, "others": pulled.choice.others}
    rest = {"digest": pulled.digest, "created": pulled.created, "signer": pulled.signer}
    return choice | rest | dataclasses.asdict(pulled.received)


def _lines(pulled: Pulled) -> list[str]:
    received = pulled.received
    damaged = f"; {received.damaged} files here were damaged" if received.damaged else ""
    return [
        f"target {pulled.choice.target.name}: {pulled.choice.reason}",
        *(f"  not {name}: {reason}" for name, reason in pulled.choice.others.items()),
        f"made {pulled.created}, " + (f"signed with {pulled.signer}" if pulled.signer else "signature not checked"),
        f"fetched {received.fetched} files, {received.fetched_bytes:,} bytes; {received.present_bytes:,} bytes were "
        f"here, {received.shared_bytes:,} in other bundles{damaged}",
    ]


def pulled_folder(reference: Reference, choose: Choose) -> Path:
    """The folder of a bundle that is pulled first, unless it is here as it is there; says what was done.

    Without a way to the remote, what was pulled before does, and that is said too.

    Raises:
        SdxlTrtError: as of `pull`.
    """
    folder = bundles_folder() / reference.folder_name
    try:
        with open_remote(reference, write=False) as remote:
            if is_current(remote, folder, choose):
                return folder
            with shown_progress() as progress:
                pulled = pull(reference, remote, folder, choose, check=False, progress=progress)
    except Unreachable as error:
        if not (folder / MANIFEST_NAME).exists():
            raise
        click.echo(f"{error.what} ({error.got}); using what was pulled before", err=True)
        return folder
    for line in _lines(pulled):
        click.echo(line, err=True)
    return folder
