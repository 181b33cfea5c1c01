"""Where a server is and how it is asked: the same for clients that wait and for those that do not."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from sdxl_trt.errors import UsageError
from sdxl_trt.ship.http import is_loopback
from sdxl_trt.version import __version__

_CONNECT_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class Server:
    """One server, its address and settings checked.

    Raises:
        UsageError: an address or a setting that cannot be used.
    """

    address: str
    """http://127.0.0.1:8000 or https://host, with the path that a proxy puts before it, if one does."""
    api_key: str | None = field(default=None, repr=False)
    """Sent to this address alone, and to other machines over TLS alone."""
    timeout: float = 600.0
    """Seconds to wait for a sign of the server: for the first one, all the time that pictures take."""
    ca: Path | None = None
    """File of certificate authorities instead of this host's."""
    retries: int = 2
    """How often it is asked again where it is busy."""
    plain_http: bool = False
    """A key may be sent unencrypted to another machine."""
    url: httpx2.URL = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _checked_address(self.address))
        if not self.timeout > 0 or self.retries < 0:
            raise UsageError(
                "a client's settings cannot be used",
                got=f"timeout={self.timeout}, retries={self.retries}",
                expected="a timeout above 0, and 0 or more retries",
            )
        if self.api_key is not None:
            self._check_key(self.api_key)

    def _check_key(self, key: str) -> None:
        if not key or not all("!" <= sign <= "~" for sign in key):
            raise UsageError(
                "the API key cannot be sent", got=f"{len(key)} characters", expected="visible ASCII signs alone"
            )
        if self.url.scheme != "https" and not is_loopback(self.url.host) and not self.plain_http:
            raise UsageError(
                "the API key would be sent to another machine unencrypted",
                got=self.address,
                expected="https, or a server on this machine",
                fix="an https address; --plain-http (plain_http=True) where the network is trusted",
            )

    def options(self) -> dict[str, Any]:
        """Arguments of `httpx2.Client` and `httpx2.AsyncClient`: redirects are not followed.

        Raises:
            UsageError: the file of certificate authorities cannot be used.
        """
        headers = {"User-Agent": f"sdxl-trt/{__version__}", "Accept-Encoding": "identity"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return {
            "base_url": self.url,
            "headers": headers,
            "timeout": httpx2.Timeout(self.timeout, connect=min(_CONNECT_SECONDS, self.timeout), pool=None),
            "verify": True if self.ca is None else _trusting(self.ca),
            # A proxy would reach its own loopback.
            "mounts": {"http://": None, "https://": None} if is_loopback(self.url.host) else None,
        }


def _checked_address(address: str) -> httpx2.URL:
    try:
        url = httpx2.URL(address)
        usable = url.scheme in ("http", "https") and bool(url.host)
    except httpx2.InvalidURL:
        usable = False
    if not usable or url.userinfo or url.query or url.fragment:
        raise UsageError(
            "the server's address cannot be used",
            got=repr(address) if not usable or not url.userinfo else "one with a name or password in it",
            expected="http://127.0.0.1:8000 or https://host",
            fix="an address alone; keys go in by api_key (--api-key-file)",
        )
    return url


def _trusting(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the certificate authorities in {ca} cannot be used",
            got=error.strerror or str(error) if isinstance(error, OSError) else str(error),
            expected="a file of certificates in PEM",
        ) from error
