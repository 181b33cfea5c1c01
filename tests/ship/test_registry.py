"""The registry client against one that misbehaves: every failure is a retry or one clear error."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from hostile_registry import Handler, Hostile, cut, hostile, on, times

from sdxl_trt.errors import TransferError, Unreachable, UsageError
from sdxl_trt.ship.http import is_loopback
from sdxl_trt.ship.oci import MAX_BYTES, Descriptor
from sdxl_trt.ship.references import parse_reference
from sdxl_trt.ship.registry import Registry
from sdxl_trt.ship.retrying import Patience
from sdxl_trt.ship.verified import verified

pytestmark = pytest.mark.timed

QUICK = Patience(pauses=(0.001, 0.001, 0.001))
CONTENT = hashlib.shake_128(b"content").digest(3_000_000)
BLOB = Descriptor.of(CONTENT, "application/octet-stream")


def client(server: Hostile, *, write: bool = False, patience: Patience = QUICK) -> Registry:
    return Registry(parse_reference(server.oci()), write=write, plain_http=False, patience=patience)


def fetched(server: Hostile, patience: Patience = QUICK) -> bytes:
    with client(server, patience=patience) as registry:
        return b"".join(verified(registry.fetch(BLOB), BLOB, str(server.host)))


def pushed(server: Hostile, patience: Patience = QUICK) -> None:
    with client(server, write=True, patience=patience) as registry:
        registry.push(BLOB, lambda: iter([CONTENT[:1_000_000], CONTENT[1_000_000:]]))


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again(server: Hostile, status: int) -> None:
    server.put(CONTENT)
    server.faults = [times(3, on("GET", "/blobs/", lambda handler: handler.reply(status)))]
    assert fetched(server) == CONTENT
    assert len(server.asked("GET", "/blobs/")) == 4


def test_it_is_not_asked_for_ever(server: Hostile) -> None:
    server.faults = [on("GET", "/blobs/", lambda handler: handler.reply(503, b"overloaded"))]
    with pytest.raises(TransferError, match=r"4 times[\s\S]*503[\s\S]*overloaded"):
        fetched(server)
    assert len(server.asked("GET", "/blobs/")) == 4


def test_retry_after_is_kept(server: Hostile) -> None:
    server.put(CONTENT)
    server.faults = [times(1, on("GET", "/blobs/", lambda handler: handler.reply(429, Retry_After="1")))]
    started = time.monotonic()
    assert fetched(server) == CONTENT
    assert 1 <= time.monotonic() - started < 5


def test_nobody_waits_for_hours(server: Hostile) -> None:
    server.faults = [on("GET", "/blobs/", lambda handler: handler.reply(429, Retry_After="7200"))]
    with pytest.raises(TransferError, match="asks to wait 7200 s"):
        fetched(server)
    assert len(server.asked("GET", "/blobs/")) == 1


def test_a_broken_download_goes_on_where_it_broke(server: Hostile) -> None:
    server.put(CONTENT)
    server.faults = [times(2, on("GET", "/blobs/", cut(1_100_000)))]
    assert fetched(server) == CONTENT
    ranges = [each.range for each in server.asked("GET", "/blobs/")]
    assert ranges[0] is None
    assert all(each and 0 < int(each[6:-1]) <= 2_200_000 for each in ranges[1:])


def test_it_goes_on_without_ranges_too(server: Hostile) -> None:
    server.put(CONTENT)

    def whole(handler: Handler) -> None:
        handler.reply(200, CONTENT)

    server.faults = [times(1, on("GET", "/blobs/", cut(1_100_000))), on("GET", "/blobs/", whole)]
    assert fetched(server) == CONTENT


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (bytes(len(CONTENT)), "content with SHA-256"),
        (CONTENT[:-1], f"{len(CONTENT) - 1} bytes"),
        (b"", "0 bytes"),
        (CONTENT + b"\0", "more than"),
        (CONTENT * 3, "more than"),
        (CONTENT[:-1] + b"\0", "content with SHA-256"),
    ],
)
def test_other_content_is_refused(server: Hostile, body: bytes, reason: str) -> None:
    server.faults = [on("GET", "/blobs/", lambda handler: handler.reply(200, body))]
    with pytest.raises(TransferError, match=reason):
        fetched(server)


def test_never_more_bytes_than_stated_are_passed_on(server: Hostile) -> None:
    server.faults = [on("GET", "/blobs/", lambda handler: handler.reply(200, CONTENT * 3))]
    taken = bytearray()
    with client(server) as registry, pytest.raises(TransferError, match="more than"):
        taken.extend(itertools.chain.from_iterable(verified(registry.fetch(BLOB), BLOB, "server")))
    assert len(taken) <= BLOB.size


def test_redirects_do_not_see_the_token(server: Hostile) -> None:
    server.token = "secret"
    with hostile() as store:
        store.blobs = {BLOB.digest: CONTENT}
        away = f"http://{store.host}/v2/store/blobs/{BLOB.digest}"
        server.faults = [
            on("GET", "/blobs/", lambda h: h.reply(307, Location=away) if h.headers["Authorization"] else h.reply(401))
        ]
        with client(server) as registry:
            registry.has(BLOB)  # gets the token
            assert b"".join(verified(registry.fetch(BLOB), BLOB, "server")) == CONTENT
        assert [each.authorization for each in store.requests] == [None]
    assert {each.authorization for each in server.asked("GET", "/blobs/")} == {"Bearer secret"}


@pytest.mark.parametrize("location", ["http://registry.example.com/blob", "ftp://127.0.0.1/blob", "file:///etc/passwd"])
def test_redirects_to_what_is_not_encrypted_are_refused(server: Hostile, location: str) -> None:
    server.faults = [on("GET", "/blobs/", lambda handler: handler.reply(307, Location=location))]
    with pytest.raises(TransferError, match="not encrypted"):
        fetched(server)


def test_redirects_without_end_are_refused(server: Hostile) -> None:
    server.faults = [on("GET", "/blobs/", lambda handler: handler.reply(307, Location=handler.path))]
    with pytest.raises(TransferError, match="307"):
        fetched(server)
    assert len(server.asked("GET", "/blobs/")) < 10


def test_a_token_is_fetched_once(server: Hostile) -> None:
    server.token = "secret"
    server.put(CONTENT)
    with client(server) as registry:
        for _ in range(3):
            assert registry.has(BLOB)
    assert len(server.asked("GET", "/token")) == 1
    assert "scope=repository%3Ax%3Apull" in server.asked("GET", "/token")[0].path


def test_a_token_that_ran_out_is_fetched_again(server: Hostile) -> None:
    server.token = "first"
    with client(server, write=True) as registry:
        assert not registry.has(BLOB)
        server.token = "second"
        registry.push(BLOB, lambda: iter([CONTENT]))
        assert registry.has(BLOB)
    assert server.blobs == {BLOB.digest: CONTENT}


def test_a_token_that_is_not_accepted_is_an_error(server: Hostile) -> None:
    server.faults = [
        on("GET", "/token", lambda handler: handler.reply(200, b'{"token": "wrong"}')),
    ]
    server.token = "right"
    with pytest.raises(TransferError, match=r"refused[\s\S]*no credentials[\s\S]*docker login"):
        fetched(server)


def test_the_password_goes_to_who_gives_tokens(server: Hostile, tmp_path: Path) -> None:
    auth = base64.b64encode(b"me:secret").decode()
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {server.host: {"auth": auth}}}))
    server.token, server.login = "token", f"Basic {auth}"
    server.put(CONTENT)
    assert fetched(server) == CONTENT
    shown = {each.authorization for each in server.requests if "/token" not in each.path}
    assert shown == {None, "Bearer token"}


def test_an_identity_token_is_exchanged(server: Hostile, tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {server.host: {"identitytoken": "identity"}}}))
    asked = []

    def exchange(handler: Handler) -> bool:
        if handler.command != "POST" or not handler.path.startswith("/token"):
            return False
        asked.append(parse_qs(handler.body().decode()))
        handler.reply(200, b'{"access_token": "token"}')
        return True

    server.token, server.faults = "token", [exchange]
    server.put(CONTENT)
    assert fetched(server) == CONTENT
    assert [(each["grant_type"], each["refresh_token"], each["service"]) for each in asked] == [
        (["refresh_token"], ["identity"], ["test"])
    ]


@pytest.mark.parametrize("realm", ["http://registry.example.com/token", "", "http://[", "ftp://127.0.0.1/token"])
def test_nothing_secret_goes_to_a_server_without_tls(server: Hostile, realm: str) -> None:
    challenge = f'Bearer realm="{realm}",service="test"'
    server.faults = [on("GET", "/blobs/", lambda handler: handler.reply(401, WWW_Authenticate=challenge))]
    with pytest.raises(TransferError):
        fetched(server)


@pytest.mark.parametrize("challenge", ["", "Negotiate", "Digest realm=x"])
def test_other_ways_to_log_in(server: Hostile, challenge: str) -> None:
    server.faults = [on("GET", "/blobs/", lambda handler: handler.reply(401, WWW_Authenticate=challenge))]
    with pytest.raises(TransferError, match="not known here"):
        fetched(server)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"token": 5}', b'{"token": "a\\r\\nX: y"}', b"[" * 3_000_000])
def test_garbage_instead_of_a_token(server: Hostile, body: bytes) -> None:
    server.token = "right"
    server.faults = [on("GET", "/token", lambda handler: handler.reply(200, body))]
    with pytest.raises(TransferError, match="no token"):
        fetched(server)


def test_an_upload_is_tried_again(server: Hostile) -> None:
    server.faults = [times(2, on("PUT", "/upload/", lambda handler: handler.reply(500)))]
    pushed(server)
    assert server.blobs == {BLOB.digest: CONTENT}
    assert len(server.asked("PUT")) == 3


def test_an_upload_whose_answer_was_lost_is_not_sent_again(server: Hostile) -> None:
    def stored(handler: Handler) -> None:
        server.put(CONTENT)
        handler.reply(502)

    server.faults = [times(1, on("PUT", "/upload/", stored))]
    pushed(server)
    assert len(server.asked("PUT")) == 1


def test_an_upload_that_breaks_is_tried_again(server: Hostile) -> None:
    def hang_up(handler: Handler) -> bool:
        if handler.command != "PUT":
            return False
        handler.rfile.read(1000)
        handler.connection.close()
        handler.close_connection = True
        return True

    server.faults = [times(2, hang_up)]
    pushed(server)
    assert server.blobs == {BLOB.digest: CONTENT}


def test_a_registry_whose_disk_is_full(server: Hostile) -> None:
    server.faults = [on("PUT", "/upload/", lambda handler: handler.reply(507, b"no space left"))]
    with pytest.raises(TransferError, match=r"507[\s\S]*no space left"):
        pushed(server)
    assert len(server.asked("PUT")) == 1


@pytest.mark.parametrize("location", ["", "http://registry.example.com/upload", "http://[", "gopher://127.0.0.1/x"])
def test_an_upload_goes_nowhere_else(server: Hostile, location: str) -> None:
    server.faults = [on("POST", "/uploads/", lambda handler: handler.reply(202, Location=location))]
    with pytest.raises(TransferError):
        pushed(server)


@pytest.mark.parametrize(("digest", "reason"), [("", "4194304 bytes"), ("sha256:" + "0" * 64, "4194304 bytes")])
def test_an_index_without_end_is_not_read(server: Hostile, digest: str, reason: str) -> None:
    server.manifests["1"] = server.manifests["sha256:" + "0" * 64] = b" " * (MAX_BYTES + 1)
    with client(server) as registry, pytest.raises(TransferError, match=reason):
        registry.resolve()


def test_another_index_than_the_digest_is_refused(server: Hostile) -> None:
    digest = "sha256:" + "0" * 64
    server.manifests[digest] = b"{}"
    reference = parse_reference(server.oci(f"team/sdxl@{digest}"))
    with (
        Registry(reference, write=False, plain_http=False, patience=QUICK) as registry,
        pytest.raises(TransferError, match="something else than was asked for"),
    ):
        registry.resolve()


def test_what_is_not_there(server: Hostile) -> None:
    with client(server) as registry:
        assert registry.tagged() is None
        assert not registry.has(BLOB)
        with pytest.raises(TransferError, match="there is no oci://"):
            registry.resolve()


def test_nothing_is_pushed_to_a_digest(server: Hostile) -> None:
    reference = parse_reference(server.oci(f"team/sdxl@{BLOB.digest}"))
    with pytest.raises(UsageError, match="digest"):
        Registry(reference, write=True, plain_http=False, patience=QUICK)


def test_a_registry_that_is_started_anew(server: Hostile) -> None:
    server.put(CONTENT)
    with client(server, patience=Patience(pauses=(0.3,) * 8)) as registry:
        assert registry.has(BLOB)
        server.stop()
        threading.Timer(0.5, server.start).start()
        assert b"".join(verified(registry.fetch(BLOB), BLOB, server.host)) == CONTENT


def test_nobody_there() -> None:
    started = time.monotonic()
    with pytest.raises(Unreachable, match="cannot be reached"):
        Registry(parse_reference("oci://127.0.0.1:9/x"), write=False, plain_http=False, patience=Patience())
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("127.0.0.1.example.com", False),
        ("localhost.example.com", False),
        ("10.0.0.1", False),
        ("0x7f000001", False),
    ],
)
def test_what_is_this_machine(host: str, own: bool) -> None:
    assert is_loopback(host) is own
