"""API keys: who may ask, what for, and the file that says so."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from running import Running, running

from sdxl_trt.errors import KeyFileError, UsageError
from sdxl_trt.runtime.serve.http.context import Context, Settings
from sdxl_trt.runtime.serve.http.keys import new_key, read_keys


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def alice(keys: Path) -> str:
    return new_key(keys, "alice")


@pytest.fixture
def ops(keys: Path, alice: str) -> str:
    return new_key(keys, "ops", admin=True)


@pytest.fixture
def locked(server: Running, keys: Path, ops: str) -> Iterator[Running]:
    """The server's service behind keys."""
    with running(Context(service=server.context.service, settings=Settings(keys=keys))) as one:
        yield one


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_key_is_kept_as_its_hash_alone(keys: Path, alice: str, ops: str) -> None:
    text = keys.read_text()
    assert alice not in text
    assert text.splitlines() == [
        f"alice:sha256:{hashlib.sha256(alice.encode()).hexdigest()}",
        f"ops:sha256:{hashlib.sha256(ops.encode()).hexdigest()}:admin",
    ]
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert alice.startswith("sdxl-trt-")
    assert len(alice) - len("sdxl-trt-") == 43  # 256 bits in base64


def test_what_stands_in_the_file_stays_when_a_key_is_added(keys: Path) -> None:
    keys.write_text(f"# by hand\n\nbob:sha256:{'0' * 64}")
    keys.chmod(0o600)
    new_key(keys, "carol")
    assert keys.read_text().startswith(f"# by hand\n\nbob:sha256:{'0' * 64}\ncarol:sha256:")
    assert [key.name for key in read_keys(keys)] == ["bob", "carol"]


@pytest.mark.parametrize("name", ["", "a b", "a:admin", "ä", "x" * 65, "alice"])
def test_names_that_cannot_be(keys: Path, alice: str, name: str) -> None:
    before = keys.read_text()
    with pytest.raises(UsageError):
        new_key(keys, name)
    assert keys.read_text() == before


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_files_that_others_may_write_are_refused(keys: Path, alice: str, mode: int) -> None:
    keys.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_keys(keys)
    with pytest.raises(KeyFileError):
        new_key(keys, "bob")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nobody\n",
        "alice\n",
        "alice:sha256:12\n",
        f"alice:md5:{'0' * 64}\n",
        f"a:sha256:{'0' * 64}:root\n",
        "\xff\n",
    ],
)
def test_files_that_are_none_of_keys_are_refused(keys: Path, text: str) -> None:
    keys.write_text(text, encoding="latin-1")
    with pytest.raises(KeyFileError):
        read_keys(keys)


def test_a_file_that_is_not_there_or_no_file(keys: Path, tmp_path: Path) -> None:
    for path in (keys, tmp_path, Path("/dev/zero")):
        with pytest.raises(KeyFileError):
            read_keys(path)


def test_a_linked_file_is_read_as_orchestrators_mount_secrets(keys: Path, alice: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(keys)
    assert [key.name for key in read_keys(tmp_path / "link")] == ["alice"]


@pytest.mark.parametrize(
    "headers", [{}, bearer("wrong"), {"Authorization": "Bearer"}, {"Authorization": "Basic !"}, {"Authorization": "x"}]
)
def test_no_key_and_wrong_ones_are_told_in_the_shape_of_each_api(locked: Running, headers: dict[str, str]) -> None:
    for path, shape in (
        ("/v1/models", {"error"}),
        ("/sdapi/v1/samplers", {"error", "detail", "body", "errors"}),
        ("/admin/queue", {"error", "what", "got", "expected", "fix"}),
        ("/metrics", {"error", "what", "got", "expected", "fix"}),
        ("/openapi.json", {"error", "what", "got", "expected", "fix"}),
    ):
        answer = locked.get(path, headers=headers)
        assert answer.status_code == 401, path
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert set(answer.json()) == shape
    for path in ("/healthz", "/readyz"):
        assert locked.get(path, headers=headers).status_code == 200


def test_openais_client_with_a_key_and_with_a_wrong_one(locked: Running, alice: str) -> None:
    right, wrong = (
        openai.OpenAI(base_url=f"{locked.base_url}/v1", api_key=key, max_retries=0) for key in (alice, alice[:-1] + "~")
    )
    answer = right.images.generate(prompt="a red circle", size="64x64", user="bob", extra_body={"steps": 1})
    assert answer.data[0].b64_json
    with pytest.raises(openai.AuthenticationError) as error:
        wrong.images.generate(prompt="a red circle")
    assert error.value.code == "invalid_api_key"


def test_a_key_as_a_password_as_a1111s_clients_send_it(locked: Running, alice: str) -> None:
    token = base64.b64encode(f"anybody:{alice}".encode()).decode()
    assert locked.get("/v1/models", headers={"Authorization": f"Basic {token}"}).status_code == 200


def test_what_operators_do_needs_an_operators_key(locked: Running, alice: str, ops: str) -> None:
    refused = locked.get("/admin/queue", headers=bearer(alice))
    assert refused.status_code == 403
    assert ":admin" in refused.json()["expected"]
    assert locked.get("/admin/queue", headers=bearer(ops)).status_code == 200
    assert locked.post("/admin/reload", headers=bearer(alice)).status_code == 403


def test_a_users_name_gives_a_keys_owner_no_second_share(
    locked: Running, alice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = list[str]()
    submit = locked.context.service.submit

    def noting(request: object, terms: object) -> object:
        job = submit(request, terms)
        clients.append(job.client)
        return job

    monkeypatch.setattr(locked.context.service, "submit", noting)
    asked = {"prompt": "a red circle", "size": "64x64", "steps": 1, "user": "bob"}
    assert locked.post("/v1/images/generations", json=asked, headers=bearer(alice)).status_code == 200
    assert clients == ["alice"]


def test_the_file_is_read_again_when_it_changes(locked: Running, keys: Path, alice: str) -> None:
    bob = new_key(keys, "bob")
    assert locked.get("/v1/models", headers=bearer(bob)).status_code == 200
    keys.write_text("".join(line for line in keys.read_text().splitlines(True) if not line.startswith("alice:")))
    assert locked.get("/v1/models", headers=bearer(alice)).status_code == 401
    assert locked.get("/v1/models", headers=bearer(bob)).status_code == 200
    keys.chmod(0o666)  # wrong now: those from before hold
    assert locked.get("/v1/models", headers=bearer(bob)).status_code == 200
    os.truncate(keys, 3)
    assert locked.get("/v1/models", headers=bearer(bob)).status_code == 200
