"""Where a server is and how it is asked: the same for the client that waits and the one that does not."""

from __future__ import annotations

import ssl
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import httpx2

from sdxl_trt.client.network import asking
from sdxl_trt.errors import TransferError, UsageError
from sdxl_trt.ship.http import is_loopback
from sdxl_trt.version import __version__

_CONNECT_SECONDS = 15.0
_LONGEST = 86_400.0


class Options(TypedDict, total=False):
    """Of a client: those of `Server`, which says what they are where they are left out."""

    api_key: str | None
    timeout: float
    ca: Path | None
    retries: int
    plain_http: bool


@dataclass(frozen=True, kw_only=True)
class Server:
    """One server, its address and settings checked.

    Raises:
        UsageError: an address or a setting that cannot be used.
    """

    address: str
    """http://127.0.0.1:8000 or https://host, with the path that a proxy puts before its own, if one does."""
    api_key: str | None = field(default=None, repr=False)
    """Sent to this address alone; to another machine over TLS alone."""
    timeout: float = 600.0
    """Seconds to wait for a sign of the server: for the first one, as long as pictures take."""
    ca: Path | None = None
    """File of certificate authorities to trust, in place of this host's."""
    retries: int = 2
    """How often it is asked again where it is busy and says until when."""
    plain_http: bool = False
    """The key may go to another machine unencrypted."""
    url: httpx2.URL = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _checked_address(self.address))
        if not (0 < self.timeout <= _LONGEST and self.retries >= 0):
            raise UsageError(
                "a client's settings cannot be used",
                got=f"timeout={self.timeout}, retries={self.retries}",
                expected=f"a timeout of up to {_LONGEST:.0f} seconds, and 0 or more retries",
                fix="timeout=600, retries=2",
            )
        if self.api_key is not None:
            self._check_key(self.api_key)

    def asking(self) -> AbstractContextManager[None]:
        """Errors of the network as ours, as of `network.asking`."""
        return asking(self.address, self.timeout)

    def options(self) -> dict[str, Any]:
        """Arguments of `httpx2.Client` and `httpx2.AsyncClient`. Redirects are not followed.

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

    def _check_key(self, key: str) -> None:
        if not key or not all("!" <= sign <= "~" for sign in key):
            raise UsageError(
                "the API key cannot be sent",
                got=f"{len(key)} characters",
                expected="visible ASCII alone, and some",
                fix="take the key as it was given out, without its name or a line's end",
            )
        if self.url.scheme != "https" and not is_loopback(self.url.host) and not self.plain_http:
            raise UsageError(
                "the API key would go to another machine unencrypted",
                got=self.address,
                expected="https, or a server on this machine",
                fix="an https address; plain_http=True (--plain-http) where the network is trusted",
            )


class Body:
    """Collects what comes of an answer.

    Args:
        most: bytes that are taken.
    """

    def __init__(self, most: int) -> None:
        self._most, self._size, self._blocks = most, 0, list[bytes]()

    def add(self, block: bytes) -> bool:
        """Take a part. Returns whether there is room for more."""
        self._blocks.append(block)
        self._size += len(block)
        return self._size <= self._most

    @property
    def start(self) -> bytes:
        """As much as is taken."""
        return b"".join(self._blocks)[: self._most]

    @property
    def whole(self) -> bytes:
        """All of it.

        Raises:
            TransferError: more than is taken.
        """
        if self._size > self._most:
            raise TransferError(
                "the server's answer is too large", got=f"over {self._most} bytes", expected="pictures", fix="a lower n"
            )
        return b"".join(self._blocks)


def _checked_address(address: str) -> httpx2.URL:
    try:
        url = httpx2.URL(address)
    except httpx2.InvalidURL:
        url = httpx2.URL("")
    usable = url.scheme in ("http", "https") and url.host and (url.port is None or url.port in range(1, 2**16))
    if not usable or url.userinfo or url.query or url.fragment:
        raise UsageError(
            "the server's address cannot be used",
            got="one with a name or a password in it" if url.userinfo else f"{address!r:.200}",
            expected="http://127.0.0.1:8000 or https://host",
            fix="the address alone; a key has its own place: api_key (--api-key-file)",
        )
    return url


def _trusting(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl's own are among them
        raise UsageError(
            f"the certificate authorities in {ca} cannot be used",
            got=error.strerror or str(error),
            expected="a file of certificates, in PEM",
            fix="ca=FILE, or leave it out where this host trusts the server's",
        ) from error
