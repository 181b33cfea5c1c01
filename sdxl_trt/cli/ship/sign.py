"""`sdxl-trt ship sign` and `ship verify`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from sdxl_trt.bundle import MANIFEST_NAME, BlobStore, Manifest, manifest_text, not_pulled, parse_manifest
from sdxl_trt.bundle.presence import Absence
from sdxl_trt.cli import json_option, print_json
from sdxl_trt.errors import BundleError, UsageError
from sdxl_trt.files import atomic_write
from sdxl_trt.trust import SIGNATURE_NAME, PublicKey, admit, host_keys, read_private_key, read_public_keys, sign

PASSWORD_VARIABLE = "SDXL_TRT_KEY_PASSWORD"  # noqa: S105 (its name)


@click.command("sign")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", required=True, metavar="PRIVATE", type=click.Path(path_type=Path), help="PEM, on P-256.")
@json_option
def sign_command(bundle: Path, key: Path, as_json: bool) -> None:
    """Read every file of BUNDLE, and sign it: hosts that have the public key then know who made it.

    The password of an encrypted key is asked on a terminal, or taken from SDXL_TRT_KEY_PASSWORD.
    """
    store, text = BlobStore(bundle), manifest_text(bundle)
    manifest = parse_manifest(text, bundle / MANIFEST_NAME)
    private = read_private_key(key, _password)
    if absent := _verify_files(store, manifest):
        raise BundleError(
            f"{bundle} is not whole",
            got=f"without the files of {', '.join(absent)}",
            expected="a bundle with all its targets",
            fix="sign it where it was built, or pull all of it",
        )
    with store.lock(), atomic_write(bundle / SIGNATURE_NAME) as file:
        file.write(sign(bundle / MANIFEST_NAME, text, private))
    _show(bundle, manifest, private.public, absent, as_json)


def _password() -> str | None:
    password = os.environ.get(PASSWORD_VARIABLE)
    if not password and sys.stdin.isatty():
        password = click.prompt("password of the key", hide_input=True, err=True)
    return password


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="PUB",
    type=click.Path(path_type=Path),
    help="One of these must have signed it; repeat for several.  [default: any key of this host]",
)
@json_option
def verify_command(bundle: Path, keys: tuple[Path, ...], as_json: bool) -> None:
    """Check who signed BUNDLE, and the hash of every file that is here."""
    trusted = tuple(key for path in keys for key in read_public_keys(path)) or host_keys()
    text = manifest_text(bundle)
    signer = admit(bundle, text, MANIFEST_NAME, trusted)
    if signer is None:
        raise UsageError(
            "there is no key to check with",
            got="no --key, and none on this host",
            expected="the public key of who signed the bundle",
            fix="--key PUB; docs/trust.md says where a host has its keys",
        )
    manifest = parse_manifest(text, bundle / MANIFEST_NAME)
    absent = _verify_files(BlobStore(bundle), manifest)
    _show(bundle, manifest, signer, absent, as_json)


def _verify_files(store: BlobStore, manifest: Manifest) -> dict[str, Absence]:
    """Read every file of the targets that are here; those that were not pulled, by name.

    Raises:
        BundleError: a file is missing, or not what the manifest says; or no target is here.
    """
    absent = not_pulled(manifest, store.bundle)
    here = [target for target in manifest.targets if target.name not in absent]
    if not here:
        raise BundleError(
            f"{store.bundle} has no target whose files are here",
            got=", ".join(absent) or "no target at all",
            fix="fetch it or build it again",
        )
    for blob in manifest.blobs(*here).values():
        store.check(blob, "a file of the bundle")
    return absent


def _show(bundle: Path, manifest: Manifest, key: PublicKey, absent: Mapping[str, Absence], as_json: bool) -> None:
    here = manifest.blobs(*(target for target in manifest.targets if target.name not in absent))
    size = sum(blob.bytes for blob in here.values())
    if as_json:
        print_json(
            {
                "bundle": str(bundle),
                "key": {"fingerprint": key.fingerprint, "source": key.source},
                "created": manifest.created,
                "files": len(here),
                "bytes": size,
                "not_pulled": list(absent),
            }
        )
        return
    click.echo(f"{bundle}: {manifest.model.name}, made {manifest.created}")
    click.echo(f"signed with {key.fingerprint} ({key.source})")
    click.echo(f"{len(here)} files, {size:,} bytes, every hash right")
    for name, absence in absent.items():
        click.echo(f"{name}: {absence}")
