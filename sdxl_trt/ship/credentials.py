"""Who this user is at a registry, as docker and podman keep it: ~/.docker/config.json and the helpers it names.

https://docs.docker.com/reference/cli/docker/login/#credential-stores
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdxl_trt.decode import DecodeError, loads
from sdxl_trt.errors import TransferError

DOCKER_HUB = ("docker.io", "registry-1.docker.io", "index.docker.io")
_HUB_KEY = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"  # noqa: S105 (what helpers give as the user's name where the secret is an identity token)
_MOST_BYTES = 2**20
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HELPER_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """A name and a password, or a token that stands for both."""

    user: str
    secret: str

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r})"

    @property
    def is_token(self) -> bool:
        """The secret is an identity token: it is exchanged, not shown."""
        return self.user == _TOKEN_USER

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.secret}".encode()).decode()


def config_file() -> Path:
    """Docker's configuration: $DOCKER_CONFIG/config.json (~/.docker/config.json)."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


def find_credentials(host: str) -> Credentials | None:
    """Those for a registry; None where there are none.

    Args:
        host: host[:port].

    Raises:
        TransferError: docker's configuration cannot be read, or the program that it names for this failed.
    """
    config = _read(config_file())
    keys = (_HUB_KEY, *DOCKER_HUB) if host in DOCKER_HUB else (host, f"https://{host}", f"https://{host}/v1/")
    helpers = _table(config, "credHelpers")
    helper = next((helpers[key] for key in keys if key in helpers), None) or config.get("credsStore")
    if helper:
        found = _ask(str(helper), keys[0])
        if found:
            return found
    entries = _table(config, "auths")
    return next((found for key in keys if (found := _entry(entries.get(key)))), None)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            value = loads(file.read(_MOST_BYTES + 1), max_bytes=_MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, DecodeError) as error:
        raise _unusable(path, str(error)) from error
    return value if isinstance(value, dict) else {}


def _table(config: dict[str, Any], name: str) -> dict[str, Any]:
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def _entry(entry: Any) -> Credentials | None:
    """An entry of `auths`: auth is the base64 of user:password; the rest is as it says."""
    if not isinstance(entry, dict):
        return None
    if token := entry.get("identitytoken"):
        return Credentials(user=_TOKEN_USER, secret=str(token))
    try:
        user, colon, secret = base64.b64decode(str(entry.get("auth", "")), validate=True).decode().partition(":")
    except ValueError as error:
        raise _unusable(config_file(), f"an entry of auths is not base64: {error}") from error
    if colon:
        return Credentials(user=user, secret=secret.rstrip("\0"))
    named = entry.get("username"), entry.get("password")
    return Credentials(user=str(named[0]), secret=str(named[1])) if all(named) else None


def _ask(helper: str, key: str) -> Credentials | None:
    """Ask docker-credential-HELPER, which answers with JSON; None where it knows of none."""
    if not _HELPER.fullmatch(helper):
        raise _unusable(config_file(), f"a credential helper named {helper!r:.80}")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"], input=key.encode(), capture_output=True, timeout=_HELPER_SECONDS, check=False
        )
        if done.returncode:
            said = (done.stdout or done.stderr).decode("utf-8", "replace").strip()
            if "not found" in said:
                return None
            raise _unusable(Path(program), said or f"exit status {done.returncode}")
        answer = json.loads(done.stdout)
        return Credentials(user=str(answer["Username"]), secret=str(answer["Secret"]))
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unusable(Path(program), str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(Path(program), "an answer that is not credentials") from error


def _unusable(place: Path, got: str) -> TransferError:
    return TransferError(
        f"credentials cannot be had from {place}",
        got=got,
        expected="docker's config.json, and the credential helper that it names",
        fix="docker login HOST; or DOCKER_CONFIG=DIR of another configuration",
    )
