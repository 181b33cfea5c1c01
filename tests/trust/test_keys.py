"""Key files: what is taken, and one clear error for each that is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from signed_bundles import Keys, write_pair

from sdxl_trt.errors import FlavourUnavailable, KeyFileError
from sdxl_trt.trust import KEY_VARIABLE, host_keys, hosts, read_private_key, read_public_keys


def read(path: Path) -> Any:
    return read_private_key(path, lambda: None)


def test_several_keys_in_a_file(keys: Keys, tmp_path: Path) -> None:
    file = tmp_path / "trusted.pem"
    file.write_bytes(b"# of 2026\n" + keys.public.read_bytes() + b"# of 2027\n" + keys.other_public.read_bytes())
    assert [key.fingerprint for key in read_public_keys(file)] == [
        key.fingerprint for path in (keys.public, keys.other_public) for key in read_public_keys(path)
    ]


def write_private(path: Path, key: Any) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def write_public(path: Path, key: Any) -> Path:
    path.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return path


def write(path: Path, text: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(text)
    return path


MAKERS: dict[str, tuple[Callable[[], Any], str]] = {
    "P-384": (lambda: ec.generate_private_key(ec.SECP384R1()), "a key on the curve secp384r1"),
    "P-521": (lambda: ec.generate_private_key(ec.SECP521R1()), "a key on the curve secp521r1"),
    "secp256k1": (lambda: ec.generate_private_key(ec.SECP256K1()), "a key on the curve secp256k1"),
    "RSA": (lambda: rsa.generate_private_key(65537, 2048), "a key of the kind RSA"),
    "Ed25519": (ed25519.Ed25519PrivateKey.generate, "a key of the kind Ed25519"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_other_kinds_of_keys(name: str, tmp_path: Path) -> None:
    make, reason = MAKERS[name]
    key = make()
    for error in (
        refused(read, write_private(tmp_path / "key.pem", key)),
        refused(read_public_keys, write_public(tmp_path / "key.pub", key)),
    ):
        assert error.got == reason
        assert "P-256" in error.expected
        assert "prime256v1" in error.fix


def refused(reader: Callable[[Path], Any], path: Path) -> KeyFileError:
    with pytest.raises(KeyFileError, match="cannot be used") as caught:
        reader(path)
    assert str(path) in caught.value.what
    assert caught.value.fix
    assert caught.value.exit_status == 2
    return caught.value


def test_what_is_no_private_key(keys: Keys, tmp_path: Path) -> None:
    public = write(tmp_path / "public.pem", keys.public.read_bytes())
    assert refused(read, public).got == "a public key"
    for text in (b"", b"text", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"\xff" * 100):
        assert refused(read, write(tmp_path / "key.pem", text)).got.startswith("no key")
    assert refused(read, write(tmp_path / "key.pem", b" " * 2**17)).got == "more than 65536 bytes"
    assert refused(read, tmp_path / "none.pem").got == "No such file or directory"
    assert "irectory" in refused(read, tmp_path).got


def test_encrypted_keys(tmp_path: Path) -> None:
    private, _ = write_pair(tmp_path / "locked", password="open sesame")
    assert refused(read, private).got == "an encrypted key and no password"
    assert (
        refused(lambda path: read_private_key(path, lambda: "x"), private).got
        == "an encrypted key and another password"
    )
    asked = []
    key = read_private_key(private, lambda: asked.append(1) or "open sesame")  # type: ignore[func-returns-value]
    assert asked == [1]
    assert "open sesame" not in repr(key)
    assert "PRIVATE" not in repr(key)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_private_keys_that_others_may_read(keys: Keys, tmp_path: Path, mode: int) -> None:
    key = write(tmp_path / "key.pem", keys.private.read_bytes())
    key.chmod(mode)
    assert refused(read, key).fix == f"chmod 600 {key}"
    key.chmod(0o400)
    assert read(key)


def test_what_is_no_public_key(keys: Keys, tmp_path: Path) -> None:
    assert refused(read_public_keys, keys.private).got == "a private key"
    certificate = write(tmp_path / "a.crt", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert refused(read_public_keys, certificate).got == "PEM of CERTIFICATE"
    assert refused(read_public_keys, write(tmp_path / "empty.pub", b"")).got == "no key"
    broken = write(tmp_path / "a.pub", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    assert refused(read_public_keys, broken).got.startswith("no key")
    assert refused(read_public_keys, tmp_path / "none.pub").got == "No such file or directory"


def test_public_keys_that_others_could_replace(keys: Keys, tmp_path: Path) -> None:
    """Whoever can put a key there decides what this host runs."""
    folder = tmp_path / "folder"
    folder.mkdir()
    key = write(folder / "key.pub", keys.public.read_bytes())
    link = tmp_path / "link.pub"
    link.symlink_to(key)
    for path, mode in ((key, 0o666), (folder, 0o777), (folder, 0o775)):
        before = path.stat().st_mode
        path.chmod(mode)
        for way in (key, link):
            assert refused(read_public_keys, way).got.startswith(f"{path} may be written by others")
        path.chmod(before)
        assert read_public_keys(link)
    folder.chmod(0o1777)
    assert read_public_keys(key), "in a folder like /tmp nobody can replace it"


def test_keys_of_a_host(keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host_keys() == ()
    third, fourth = (write_pair(tmp_path / name)[1] for name in ("third", "fourth"))
    for path, key in ((hosts.SYSTEM_KEYS, third), (tmp_path / "config" / "sdxl-trt" / "trusted.pem", fourth)):
        path.parent.mkdir(parents=True)
        path.write_bytes(key.read_bytes())
    monkeypatch.setenv(KEY_VARIABLE, f"{keys.public}:{keys.other_public}")
    expected = [
        key.fingerprint for path in (keys.public, keys.other_public, third, fourth) for key in read_public_keys(path)
    ]
    assert [key.fingerprint for key in host_keys()] == expected


def test_a_key_that_cannot_be_used_is_not_passed_over(
    keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, f"{keys.public}:{tmp_path / 'misspelt.pub'}")
    with pytest.raises(KeyFileError, match="misspelt"):
        host_keys()
    monkeypatch.setenv(KEY_VARIABLE, "")
    hosts.SYSTEM_KEYS.parent.mkdir()
    hosts.SYSTEM_KEYS.symlink_to("nowhere")
    with pytest.raises(KeyFileError, match=r"trusted\.pem"):
        host_keys()


def test_a_place_that_may_not_be_seen_is_not_taken_for_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may look anywhere, so the system says no by its own word here."""

    def refuse(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "lstat", refuse)
    with pytest.raises(KeyFileError, match="cannot be seen"):
        host_keys()


def test_without_the_library(keys: Keys, trusting: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.serialization", None)
    trusting(keys.public)
    with pytest.raises(FlavourUnavailable, match="cannot be imported") as caught:
        host_keys()
    assert caught.value.fix == "pip install 'sdxl-trt[ship]'"
