"""Who may ask, and for what. With keys: who has one; what operators do, who has one that says so. Without: everybody,
and from this host alone what operators do.
"""

from __future__ import annotations

import base64
import ipaddress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sdxl_trt.runtime.serve.http.errors import HttpError
from sdxl_trt.runtime.serve.http.keys import Key, Keys

OPEN = ("/healthz", "/readyz")
"""What orchestrators ask, who have no key."""
ADMIN = "/admin"


class Gate:
    """ASGI middleware.

    Args:
        app: behind it.
        keys: of who may ask; None: everybody may.
    """

    def __init__(self, app: ASGIApp, keys: Keys | None) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through.

        Raises:
            HttpError: 401 or 403.
        """
        if scope["type"] == "http" and scope["path"] not in OPEN:
            headers = Headers(scope=scope)
            if self._keys is None:
                _check_place(scope, headers)
            else:
                key = self._key(headers)
                if scope["path"].startswith(ADMIN) and not key.admin:
                    raise _forbidden("this API key is not an operator's", key.name, "a key whose line ends with :admin")
                scope["state"]["client"], scope["state"]["key"] = key.name, key
        await self._app(scope, receive, send)

    def _key(self, headers: Headers) -> Key:
        given = _given(headers.get("authorization", ""))
        key = self._keys.find(given) if self._keys and given else None
        if key is None:
            raise HttpError(
                401,
                "the API key is not right" if given else "an API key is needed",
                code="invalid_api_key",
                expected="Authorization: Bearer KEY (or Basic, with the key as the password)",
                fix="ask who runs this server for a key",
            )
        return key


def _given(authorization: str) -> str:
    """The key of a header; A1111's clients know names and passwords alone."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except ValueError:  # no base64, or no text in it
            return ""
    return ""


def _check_place(scope: Scope, headers: Headers) -> None:
    """Without keys a browser must not be led here by other people's pages, and operators are who is on this host."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        raise _forbidden("another site's page may not ask this server", origin, "pages of this server, or an API key")
    if scope["path"].startswith(ADMIN):
        peer = scope["client"][0] if scope["client"] else ""
        # A name that somebody else's DNS leads here is not this host's, whatever the address is.
        if not (is_loopback(peer) and is_loopback(_without_port(host))):
            raise _forbidden(
                "what operators do needs an API key, or this host", f"{peer}, asking for {host!r:.80}", "127.0.0.1"
            )


def is_loopback(host: str) -> bool:
    """Whether a name or address is this host's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _without_port(host: str) -> str:
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _forbidden(what: str, got: str, expected: str) -> HttpError:
    fix = "start the server with --keys, and ask with a key that may"
    return HttpError(403, what, code="forbidden", got=got, expected=expected, fix=fix)
