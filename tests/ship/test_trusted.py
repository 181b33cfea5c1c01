"""Pulling on hosts that have a public key."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hostile_registry import Hostile
from shipped import contents, host, make_bundle

from sdxl_trt.bundle import manifest_text, read_manifest
from sdxl_trt.errors import NotTrusted
from sdxl_trt.files import atomic_write
from sdxl_trt.ship.choosing import choose_for
from sdxl_trt.ship.pull import Pulled, pull
from sdxl_trt.ship.push import push
from sdxl_trt.ship.references import parse_reference
from sdxl_trt.ship.remote import open_remote
from sdxl_trt.trust import read_private_key, sign

OLD, NEW = "2026-01-02T03:04:05+00:00", "2026-02-02T03:04:05+00:00"


def make_key(folder: Path, name: str) -> Path:
    private = folder / f"{name}.pem"
    curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run(["openssl", "genpkey", *curve, "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", folder / f"{name}.pub"], check=True)
    return private


def signed(bundle: Path, key: Path, **how: str) -> Path:
    make_bundle(bundle, **how)
    with atomic_write(bundle / "bundle.sig") as file:
        file.write(sign(bundle / "bundle.json", manifest_text(bundle), read_private_key(key, lambda: None)))
    return bundle


def send(bundle: Path, reference: str) -> None:
    with open_remote(parse_reference(reference), write=True) as remote:
        push(bundle, remote)


def fetch(reference: str, folder: Path, **how: bool) -> Pulled:
    wanted = parse_reference(reference)
    with open_remote(wanted, write=False) as remote:
        return pull(wanted, remote, folder, choose_for([host(89)], fix="-"), **how)


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key, which this host trusts."""
    pytest.importorskip("model_signing")
    key = make_key(tmp_path, "release")
    monkeypatch.setenv("SDXL_TRT_PUBLIC_KEY", str(tmp_path / "release.pub"))
    return key


def refused(server: Hostile, folder: Path, reason: str, reference: str = "") -> None:
    """Refused, with nothing fetched but the documents and two small files, and nothing written."""
    server.requests.clear()
    with pytest.raises(NotTrusted, match=reason):
        fetch(reference or server.oci(), folder)
    assert len(server.asked("GET", "/blobs/")) <= 2
    assert not folder.exists()


def test_signed(server: Hostile, tmp_path: Path, key: Path) -> None:
    built = signed(tmp_path / "home/built", key)
    send(built, server.oci())
    pulled = fetch(server.oci(), tmp_path / "pulled")
    assert pulled.signer
    assert (tmp_path / "pulled/bundle.sig").read_bytes() == (built / "bundle.sig").read_bytes()
    read_manifest(tmp_path / "pulled")


def test_unsigned(server: Hostile, tmp_path: Path, key: Path) -> None:
    make_bundle(tmp_path / "home/built")
    send(tmp_path / "home/built", server.oci())
    refused(server, tmp_path / "pulled", "not signed")


def test_signed_by_somebody_else(server: Hostile, tmp_path: Path, key: Path) -> None:
    send(signed(tmp_path / "home/built", make_key(tmp_path, "other")), server.oci())
    refused(server, tmp_path / "pulled", "not trusted")


def test_altered(server: Hostile, tmp_path: Path, key: Path) -> None:
    built = signed(tmp_path / "home/built", key)
    text = (built / "bundle.json").read_text()
    (built / "bundle.json").write_text(text.replace('"small"', '"other"'))
    send(built, server.oci())
    refused(server, tmp_path / "pulled", "altered after it was signed")


def test_older(server: Hostile, tmp_path: Path, key: Path) -> None:
    send(signed(tmp_path / "home/new", key, seed="new", created=NEW), server.oci())
    fetch(server.oci(), tmp_path / "pulled")
    before = contents(tmp_path / "pulled")
    send(signed(tmp_path / "home/old", key, seed="old", created=OLD), server.oci())
    with pytest.raises(NotTrusted, match="older"):
        fetch(server.oci(), tmp_path / "pulled")
    assert contents(tmp_path / "pulled") == before
    # Neither into another folder.
    refused(server, tmp_path / "elsewhere", "older")
    fetch(server.oci(), tmp_path / "pulled", allow_downgrade=True)
    assert read_manifest(tmp_path / "pulled").created == OLD


def test_a_signature_that_is_gone_again(server: Hostile, tmp_path: Path) -> None:
    """Hosts without keys take what comes; a signature of another bundle does not stay beside it."""
    pytest.importorskip("model_signing")
    send(signed(tmp_path / "home/one", make_key(tmp_path, "release")), server.oci())
    fetch(server.oci(), tmp_path / "pulled")
    assert (tmp_path / "pulled/bundle.sig").exists()
    make_bundle(tmp_path / "home/two", seed="two")
    send(tmp_path / "home/two", server.oci())
    fetch(server.oci(), tmp_path / "pulled")
    assert not (tmp_path / "pulled/bundle.sig").exists()
