"""One file signed and checked: with its key, with another, altered, and by the library's own command."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from signed_bundles import Keys, write_pair

from sdxl_trt.errors import NotTrusted, OutputError
from sdxl_trt.trust import PrivateKey, read_private_key, read_public_keys, sign, verify

TEXT = b'{"schema": 4}\n'


def flipped(at: int, bit: int) -> bytes:
    return bytes(byte ^ (1 << bit if place == at else 0) for place, byte in enumerate(TEXT))


@pytest.fixture
def key(keys: Keys) -> PrivateKey:
    return read_private_key(keys.private, lambda: None)


@pytest.fixture
def signature(key: PrivateKey, tmp_path: Path) -> bytes:
    (tmp_path / "bundle.json").write_bytes(TEXT)
    return sign(tmp_path / "bundle.json", TEXT, key)


def test_signed_by_this_key_and_no_other(keys: Keys, signature: bytes) -> None:
    ours, theirs = read_public_keys(keys.public), read_public_keys(keys.other_public)
    assert verify(TEXT, signature, ours, "bundle") == ours[0]
    assert verify(TEXT, signature, (*theirs, *ours), "bundle") == ours[0]
    with pytest.raises(NotTrusted, match="which is not trusted here") as caught:
        verify(TEXT, signature, theirs, "bundle")
    assert theirs[0].fingerprint in caught.value.expected


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.binary(max_size=40) | st.builds(flipped, st.integers(0, 13), st.integers(0, 7)))
def test_no_other_text_passes(key: PrivateKey, signature: bytes, text: bytes) -> None:
    if text == TEXT:
        return
    with pytest.raises(NotTrusted, match="altered after it was signed"):
        verify(text, signature, (key.public,), "bundle")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_altered_signature_is_refused_or_says_the_same(
    key: PrivateKey, signature: bytes, data: st.DataObject
) -> None:
    """Blanks between parts and parts that nothing reads may differ; never an error of another kind."""
    at = data.draw(st.integers(0, len(signature) - 1))
    altered = signature[:at] + data.draw(st.binary(max_size=3)) + signature[at + data.draw(st.integers(0, 3)) :]
    with contextlib.suppress(NotTrusted):
        assert verify(TEXT, altered, (key.public,), "bundle") == key.public


def test_what_a_signature_holds(keys: Keys, signature: bytes) -> None:
    (public,) = read_public_keys(keys.public)
    document = json.loads(signature)
    assert document["verificationMaterial"]["publicKey"]["hint"] == public.fingerprint
    assert b"PRIVATE" not in signature
    shown = subprocess.run(["sha256sum", keys.public], capture_output=True, text=True, check=True).stdout
    assert shown.startswith(public.fingerprint), "fingerprints are what sha256sum says of a public key's file"


def test_the_library_checks_it_alone(keys: Keys, tmp_path: Path, signature: bytes) -> None:
    """Anybody can, with model-signing's own command and without this project."""
    (tmp_path / "bundle.sig").write_bytes(signature)
    command = [sys.executable, "-m", "model_signing", "verify", "key", tmp_path / "bundle.json"]
    options = ["--signature", tmp_path / "bundle.sig", "--public_key", keys.public]
    assert subprocess.run([*command, *options], capture_output=True, check=False).returncode == 0
    (tmp_path / "bundle.json").write_bytes(TEXT + b" ")
    assert subprocess.run([*command, *options], capture_output=True, check=False).returncode != 0


def test_a_file_that_changes_while_it_is_signed(key: PrivateKey, tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_bytes(b"other")
    with pytest.raises(NotTrusted, match="altered after it was signed"):
        sign(tmp_path / "bundle.json", TEXT, key)
    (tmp_path / "bundle.json").unlink()
    with pytest.raises(OutputError, match="could not be signed"):
        sign(tmp_path / "bundle.json", TEXT, key)


def test_an_encrypted_key_signs(tmp_path: Path) -> None:
    private, public = write_pair(tmp_path / "locked", password="open sesame")
    (tmp_path / "bundle.json").write_bytes(TEXT)
    signature = sign(tmp_path / "bundle.json", TEXT, read_private_key(private, lambda: "open sesame"))
    assert verify(TEXT, signature, read_public_keys(public), "bundle")


LAZY = """
import sys
from sdxl_trt.bundle import read_manifest
from pathlib import Path
try:
    read_manifest(Path("none"))
except Exception as error:
    assert "is not a bundle" in str(error)
assert not {"model_signing", "cryptography", "sigstore"} & set(sys.modules)
"""


def test_nothing_is_imported_where_no_key_is_configured(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", LAZY], cwd=root, check=True, env={"HOME": str(tmp_path)})
