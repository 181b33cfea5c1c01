"""What a registry wants to see before it answers: nothing, a password, or a token that another server gives for it.

https://distribution.github.io/distribution/spec/auth/token/ and …/spec/auth/oauth/
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence

import httpx2

from sdxl_trt.decode import DecodeError, loads
from sdxl_trt.errors import TransferError
from sdxl_trt.ship.credentials import Credentials, find_credentials
from sdxl_trt.ship.retrying import Transient

_CHALLENGE = re.compile(r"\s*(Bearer|Basic)\b(.*)", re.IGNORECASE | re.DOTALL)
_PARAMETER = re.compile(r'([a-zA-Z]+)="([^"]*)"')
_MOST_BYTES = 2**20
_CLIENT = "sdxl-trt"


class Authority:
    """What is shown to one registry; all threads show the same.

    Args:
        client: for the servers that give tokens.
        host: host[:port] of the registry.
        check: refuses a URL that nothing secret may be sent to.
    """

    def __init__(self, client: httpx2.Client, host: str, check: Callable[[httpx2.URL], None]) -> None:
        self._client, self._host, self._check = client, host, check
        self._lock = threading.Lock()
        self._shown: dict[str, str] = {}
        self._credentials: Credentials | None = None
        self._looked = False

    def header(self) -> dict[str, str]:
        """Headers for a request to the registry."""
        return self._shown

    def challenged(self, challenges: Sequence[str], shown: Mapping[str, str]) -> None:
        """Get what the registry asks for; nothing where another thread has got it since.

        Args:
            challenges: its WWW-Authenticate headers.
            shown: headers that it did not accept.

        Raises:
            TransferError: there is nothing to show, or it was refused.
        """
        with self._lock:
            if self._shown != dict(shown):
                return
            kind, parameters = self._parse(challenges)
            if kind == "basic":
                credentials = self._find()
                if credentials is None or credentials.is_token or self._shown:
                    raise self.denied(f"{self._host} wants a user and a password", "others" if self._shown else "none")
                self._shown = {"Authorization": credentials.basic}
            else:
                self._shown = {"Authorization": f"Bearer {self._token(parameters)}"}

    def _parse(self, challenges: Sequence[str]) -> tuple[str, dict[str, str]]:
        """The first challenge of a kind that is known, in lower case, and its parameters."""
        for challenge in challenges:
            if match := _CHALLENGE.match(challenge):
                return match[1].lower(), dict(_PARAMETER.findall(match[2]))
        raise TransferError(
            f"{self._host} wants to know who this is in a way that is not known here",
            got=f"{'; '.join(challenges)!r:.200}",
            expected="WWW-Authenticate: Basic or Bearer",
        )

    def _find(self) -> Credentials | None:
        if not self._looked:
            self._credentials, self._looked = find_credentials(self._host), True
        return self._credentials

    def _token(self, parameters: Mapping[str, str]) -> str:
        """Fetch a token from the server that a challenge names."""
        try:
            realm = httpx2.URL(parameters.get("realm", ""))
        except httpx2.InvalidURL as error:
            raise TransferError(f"{self._host} names no server for tokens", got=str(error)) from error
        self._check(realm)
        asked = {name: parameters[name] for name in ("service", "scope") if name in parameters}
        credentials = self._find()
        if credentials and credentials.is_token:
            grant = {"grant_type": "refresh_token", "refresh_token": credentials.secret, "client_id": _CLIENT}
            request = self._client.build_request("POST", realm, data=asked | grant)
        else:
            headers = {"Authorization": credentials.basic} if credentials else {}
            request = self._client.build_request("GET", realm.copy_merge_params(asked), headers=headers)
        return self._read_token(request)

    def _read_token(self, request: httpx2.Request) -> str:
        answer = self._client.send(request, stream=True)
        try:
            status, body = answer.status_code, b""
            for block in answer.iter_raw():
                body += block
                if len(body) > _MOST_BYTES:
                    break
        finally:
            answer.close()
        if status == 429 or status >= 500:
            raise Transient(f"{request.url.host}, which gives tokens, answers {status}")
        if status != 200:
            raise self.denied(f"{request.url.host} gives no token for {self._host}", f"{status} {answer.reason_phrase}")
        try:
            value = loads(body, max_bytes=_MOST_BYTES)
            token = (value.get("token") or value.get("access_token")) if isinstance(value, dict) else None
        except DecodeError:
            token = None
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise TransferError(f"{request.url.host} gives no token", got="an answer without one", expected="JSON")
        return token

    def denied(self, what: str, got: str) -> TransferError:
        """The error for access that was refused."""
        known = f"user {self._credentials.user}" if self._credentials else "no credentials for it here"
        return TransferError(
            what,
            got=f"{got}; {known}",
            expected="credentials in docker's configuration that may do this",
            fix=f"docker login {self._host} (or podman, oras, skopeo: login --authfile ~/.docker/config.json)",
        )
