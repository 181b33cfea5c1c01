"""References as they are written, and credentials as docker keeps them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from sdxl_trt.errors import TransferError, UsageError
from sdxl_trt.ship.credentials import find_credentials
from sdxl_trt.ship.references import is_reference, parse_reference

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "kind", "place", "tag", "digest"),
    [
        ("oci://host/name", "registry", "host/name", "latest", ""),
        ("oci://host:5000/a/b/c:1.2_x", "registry", "host:5000/a/b/c", "1.2_x", ""),
        (f"oci://host/name@{DIGEST}", "registry", "host/name", "latest", DIGEST),
        (f"oci://host/name:tag@{DIGEST}", "registry", "host/name", "tag", DIGEST),
        ("oci://[::1]:5000/name:1", "registry", "[::1]:5000/name", "1", ""),
        ("oci-layout:folder", "layout", "folder", "latest", ""),
        ("oci-layout:/a/b:v1", "layout", "/a/b", "v1", ""),
        ("oci-layout:s3://bucket/x:v1", "layout", "s3://bucket/x", "v1", ""),
        ("s3://bucket/x", "layout", "s3://bucket/x", "latest", ""),
        ("memory://x:2", "layout", "memory://x", "2", ""),
        ("file:///a/b", "layout", "file:///a/b", "latest", ""),
        ("a.tar", "archive", "a.tar", "latest", ""),
        ("/a/b c.tar", "archive", "/a/b c.tar", "latest", ""),
    ],
)
def test_forms(text: str, kind: str, place: str, tag: str, digest: str) -> None:
    reference = parse_reference(text)
    assert (reference.kind, reference.place, reference.tag, reference.digest) == (kind, place, tag, digest)
    assert is_reference(text)
    again = parse_reference(str(reference))
    assert (again.place, again.digest) == (place, digest)
    assert digest or again == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host/name",
        "oci://host",
        "oci://host/",
        "oci://host/Name",
        "oci://host/na me",
        "oci://host/a//b",
        "oci://host/../b",
        "oci://host:99999/a",
        "oci://user:password@host/a",
        "oci://host/name:",
        "oci://host/name:ta/g",
        "oci://host/name@sha256:0",
        "oci://host/name@md5:" + "0" * 64,
        f"oci://host/{'a' * 300}",
        "oci-layout:",
        "oci://host/name\n",
        "s3://bucket/x.tar",
        ".tar",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="expected: oci://host"):
        parse_reference(text)


def test_folder_names() -> None:
    texts = [
        "oci://host/team/sdxl:1",
        "oci://host/team/sdxl:2",
        "oci://other/team/sdxl:1",
        "oci-layout:/:x",
        "../.tar.tar",
    ]
    names = [parse_reference(text).folder_name for text in [*texts, f"oci://host/sdxl@{DIGEST}"]]
    assert len(set(names)) == len(names)
    assert names[0].startswith("sdxl-1-")
    for name in names:
        assert "/" not in name
        assert not name.startswith(".")


def write(tmp_path: Path, config: object) -> None:
    (tmp_path / "docker").mkdir(exist_ok=True)
    (tmp_path / "docker" / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def test_nothing_there(tmp_path: Path) -> None:
    assert find_credentials("host") is None


@pytest.mark.parametrize(
    ("config", "host", "expected"),
    [
        ({"auths": {"host:5000": auth("me:se:cret")}}, "host:5000", ("me", "se:cret")),
        ({"auths": {"https://host": auth("me:secret")}}, "host", ("me", "secret")),
        ({"auths": {"host": {"username": "me", "password": "secret"}}}, "host", ("me", "secret")),
        ({"auths": {"host": {"identitytoken": "token"}}}, "host", ("<token>", "token")),
        ({"auths": {"https://index.docker.io/v1/": auth("me:secret")}}, "registry-1.docker.io", ("me", "secret")),
        ({"auths": {"other": auth("me:secret")}}, "host", None),
        ({"auths": {"host": {}}}, "host", None),
        ({"auths": []}, "host", None),
        ([], "host", None),
    ],
)
def test_auths(tmp_path: Path, config: object, host: str, expected: tuple[str, str] | None) -> None:
    write(tmp_path, config)
    found = find_credentials(host)
    assert (found and (found.user, found.secret)) == expected
    assert "secret" not in repr(found)


HELPER = """#!/bin/sh
[ "$1" = get ] || exit 2
read host
case "$host" in
    host) echo '{"ServerURL": "host", "Username": "me", "Secret": "from WHO"}' ;;
    token) echo '{"ServerURL": "token", "Username": "<token>", "Secret": "identity"}' ;;
    garbage) echo 'not JSON' ;;
    locked) echo 'the keychain is locked'; exit 1 ;;
    *) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"""


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("one", "two"):
        path = folder / f"docker-credential-{name}"
        path.write_text(HELPER.replace("WHO", name))
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.usefixtures("helpers")
def test_helpers(tmp_path: Path) -> None:
    write(tmp_path, {"credsStore": "one", "credHelpers": {"host": "two"}, "auths": {"plain": auth("me:plain")}})
    for host, secret in (("host", "from two"), ("token", "identity"), ("plain", "plain")):
        found = find_credentials(host)
        assert found
        assert found.secret == secret
        assert found.is_token is (host == "token")
    assert find_credentials("unknown") is None
    write(tmp_path, {"credsStore": "one"})
    found = find_credentials("host")
    assert found
    assert found.secret == "from one"


@pytest.mark.usefixtures("helpers")
@pytest.mark.parametrize(
    ("config", "host", "reason"),
    [
        ({"credsStore": "one"}, "garbage", "not credentials"),
        ({"credsStore": "one"}, "locked", "keychain is locked"),
        ({"credsStore": "absent"}, "host", "docker-credential-absent"),
        ({"credsStore": "../evil"}, "host", "evil"),
        ({"credHelpers": {"host": "a b; c"}}, "host", "a b; c"),
        ({"auths": {"host": {"auth": "§"}}}, "host", "not base64"),
        ("{", "host", "not JSON"),
        ('{"auths": {}, "auths": {}}', "host", "twice"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, config: object, host: str, reason: str) -> None:
    write(tmp_path, config)
    with pytest.raises(TransferError, match=reason) as caught:
        find_credentials(host)
    assert "docker login" in caught.value.fix
