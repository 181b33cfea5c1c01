"""`sdxl-trt ship push`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sdxl_trt.cli import json_option, print_json
from sdxl_trt.cli.progress import shown_progress
from sdxl_trt.ship.references import Reference, parse_reference


class ReferenceType(click.ParamType[Reference]):
    """`oci://host/name:tag`, `oci-layout:PATH`, `PATH.tar`, or a URL of a folder."""

    name = "reference"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Reference:  # noqa: ARG002
        """Parse; what is wrong is told as any wrong request is."""
        return value if isinstance(value, Reference) else parse_reference(value)


def plain_http_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The `--plain-http` flag."""
    return click.option(
        "--plain-http",
        is_flag=True,
        help="Talk to the registry without TLS. On this machine that is found out.",
    )(command)


@click.command("push")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("reference", type=ReferenceType())
@plain_http_option
@json_option
def push_command(bundle: Path, reference: Reference, plain_http: bool, as_json: bool) -> None:
    """Send BUNDLE to a registry, a folder or an archive.

    REFERENCE is oci://host/name:tag; or an OCI image layout: oci-layout:PATH, PATH.tar, or the URL of a folder
    (s3://…). What is there already is not sent. Registries are shown the credentials of `docker login`.
    """
    from sdxl_trt.ship.push import push
    from sdxl_trt.ship.remote import open_remote

    with shown_progress() as progress, open_remote(reference, write=True, plain_http=plain_http) as remote:
        pushed = push(bundle, remote, progress=progress)
    if as_json:
        print_json({"bundle": str(bundle), "reference": str(reference)} | dataclasses.asdict(pushed))
        return
    click.echo(f"{reference}\n{pushed.digest}")
    click.echo(f"targets: {', '.join(pushed.targets)}")
    if pushed.absent:
        click.echo(f"not here, so not sent: {', '.join(pushed.absent)}")
    click.echo(
        f"sent {pushed.sent} files, {pushed.sent_bytes:,} bytes; "
        f"{pushed.present} files, {pushed.present_bytes:,} bytes were there already"
    )
