"""HTTP as registries speak it: encrypted unless told otherwise, with credentials for their own host alone."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable, Iterator, Mapping

import httpx2

from sdxl_trt.errors import TransferError, Unreachable
from sdxl_trt.ship.auth import Authority
from sdxl_trt.ship.failures import Untrusted, answers_plainly, reason, seconds, sending
from sdxl_trt.ship.retrying import Transient
from sdxl_trt.version import __version__

Content = Callable[[], Iterator[bytes]]
"""Gives a request's body, from its beginning each time."""

_TIMEOUT = httpx2.Timeout(60, connect=15, pool=None)
_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_LATER = (408, 425, 429, 500, 502, 503, 504)


def is_loopback(host: str) -> bool:
    """Whether a host, without port, is this machine for certain."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Http:
    """Requests to one registry, from several threads.

    Args:
        host: host[:port].
        plain: plain HTTP was asked for; else it is taken on this machine alone, where TLS is not answered.
    """

    def __init__(self, host: str, *, plain: bool = False) -> None:
        self._plain = plain
        own = is_loopback(httpx2.URL(f"https://{host}").host)
        limits = httpx2.Limits(max_connections=16)
        agent = {"User-Agent": f"sdxl-trt/{__version__}", "Accept-Encoding": "identity"}
        self._client = httpx2.Client(
            timeout=_TIMEOUT, limits=limits, headers=agent, trust_env=True, mounts=_direct(own)
        )
        try:
            self.base = httpx2.URL(f"{self._scheme(host, own)}://{host}/v2/")
        except BaseException:
            self.close()
            raise
        self._authority = Authority(self._client, host, self.check_scheme)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _scheme(self, host: str, own: bool) -> str:
        """Find out whether the registry is there, and on this machine also whether it speaks TLS."""
        try:
            with sending(host):
                self._client.head(f"{'http' if self._plain else 'https'}://{host}/v2/")
        except Unreachable as error:
            if own and not self._plain and answers_plainly(error):
                return "http"
            raise
        except Transient:
            pass  # it is there; what to make of its failures is for the requests that matter
        return "http" if self._plain else "https"

    @contextlib.contextmanager
    def open(
        self,
        method: str,
        url: httpx2.URL,
        *,
        headers: Mapping[str, str] | None = None,
        content: Content | None = None,
        expected: tuple[int, ...] = (200,),
    ) -> Iterator[httpx2.Response]:
        """One request: an answer with an expected status, its body not yet read.

        Raises:
            Transient: it failed in a way that may pass.
            TransferError: refused, or not to be had.
        """
        try:
            with sending(url.host), contextlib.closing(self._answer(method, url, headers, content)) as answer:
                if answer.status_code not in expected:
                    raise self._refused(answer)
                yield answer
        except Untrusted:
            raise
        except Unreachable as error:  # it was there a moment ago
            raise Transient(f"{error.what}: {error.got}") from error

    def _answer(
        self, method: str, url: httpx2.URL, headers: Mapping[str, str] | None, content: Content | None
    ) -> httpx2.Response:
        """Follow challenges, and redirects of what has no body."""
        asked = redirects = 0
        while True:
            self.check_scheme(url)
            ours = self._is_ours(url)
            shown = self._authority.header() if ours else {}
            request = self._client.build_request(
                method, url, headers=dict(headers or {}) | shown, content=content() if content else None
            )
            answer = self._client.send(request, stream=True)
            if answer.status_code == 401 and ours and asked < 2:
                asked += 1
                answer.close()
                self._authority.challenged(answer.headers.get_list("www-authenticate"), shown)
            elif answer.status_code in _REDIRECTS and method in ("GET", "HEAD") and redirects < _MOST_REDIRECTS:
                redirects += 1
                answer.close()
                url = self.join(url, answer.headers.get("location", ""))
            else:
                return answer

    def join(self, url: httpx2.URL, location: str) -> httpx2.URL:
        """A Location header, relative or not.

        Raises:
            TransferError: it is no URL.
        """
        try:
            if location:
                return url.join(location)
        except (httpx2.InvalidURL, ValueError):
            pass
        raise TransferError(f"{self.base.host} sent this client nowhere", got=f"Location: {location!r:.200}")

    def _is_ours(self, url: httpx2.URL) -> bool:
        return (url.scheme, url.netloc) == (self.base.scheme, self.base.netloc)

    def check_scheme(self, url: httpx2.URL) -> None:
        """Refuse to send anything unencrypted to another machine, unless that was asked for.

        Raises:
            TransferError: refused.
        """
        if url.scheme == "https" or (url.scheme == "http" and (self._plain or is_loopback(url.host))):
            return
        raise TransferError(
            "the registry sends this client to an address that is not encrypted",
            got=f"{url.scheme}://{url.host}",
            expected="https, or a registry on this machine",
            fix="have the registry give https addresses; --plain-http where the network is trusted",
        )

    def _refused(self, answer: httpx2.Response) -> Exception:
        status, url = answer.status_code, answer.request.url
        got = f"{status} {answer.reason_phrase}".strip() + reason(answer)
        if status in _LATER:
            return Transient(f"{url.host} answers {got}", seconds(answer.headers.get("retry-after", "")))
        what = f"{url.host} refused: {answer.request.method} {url.path}"
        if status in (401, 403) and self._is_ours(url):
            return self._authority.denied(what, got)
        return TransferError(what, got=got, expected="a registry of OCI distribution 1.0 or later that takes this")


def _direct(own: bool) -> dict[str, None] | None:
    """For this machine no proxy: that would reach its own loopback."""
    return {"http://": None, "https://": None} if own else None
