"""What goes wrong between here and a registry, in our words."""

from __future__ import annotations

import contextlib
import email.utils
import ssl
import time
from collections.abc import Iterator

import httpx2

from sdxl_trt.errors import TransferError, Unreachable
from sdxl_trt.ship.retrying import Transient

_MOST_REASON = 2**14
"""Bytes of a failure's body that are read."""


@contextlib.contextmanager
def sending(host: str) -> Iterator[None]:
    """Errors of the network in our words.

    Raises:
        Transient: cut off, or too slow.
        Unreachable: there is nobody, or nobody to trust.
    """
    try:
        yield
    except httpx2.ConnectError as error:
        raise _unreachable(host, error) from error
    except (httpx2.ConnectTimeout, httpx2.ProxyError) as error:
        raise _unreachable(host, error) from error
    except (httpx2.TransportError, httpx2.StreamError) as error:
        raise Transient(f"the connection to {host} broke: {type(error).__name__} {error}".strip()) from error
    except httpx2.InvalidURL as error:
        raise TransferError(f"{host} cannot be asked", got=str(error)) from error


class Untrusted(Unreachable):
    """Who answers is not known to be who was asked."""


def _unreachable(host: str, error: Exception) -> Unreachable:
    if any(isinstance(each, ssl.SSLCertVerificationError) for each in _causes(error)):
        return Untrusted(
            f"{host} has a certificate that this host does not trust",
            got=f"{error}",
            expected="one of an authority that is known here",
            fix="SSL_CERT_FILE=FILE, which holds your certificate authority",
        )
    return Unreachable(
        f"{host} cannot be reached",
        got=f"{error}",
        expected="a registry that answers with TLS",
        fix="check the name and the network; --plain-http for a registry without TLS",
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came of."""
    while error:
        yield error
        error = error.__cause__ or error.__context__


def answers_plainly(error: BaseException) -> bool:
    """A handshake that failed, but not for the certificate: what answers is no TLS."""
    found = [each for each in _causes(error) if isinstance(each, ssl.SSLError)]
    return bool(found) and not any(isinstance(each, ssl.SSLCertVerificationError) for each in found)


def seconds(header: str) -> float:
    """A Retry-After header: seconds, or a date; 0 where it is neither."""
    if header.isdecimal():
        return float(header[:6])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0


def reason(answer: httpx2.Response) -> str:
    """The beginning of a failure's body, on one line."""
    body = b""
    with contextlib.suppress(httpx2.HTTPError, httpx2.StreamError):
        for block in answer.iter_raw():
            body += block
            if len(body) >= _MOST_REASON:
                break
    text = " ".join(body[:300].decode("utf-8", "replace").split())
    return f": {''.join(sign if sign.isprintable() else '?' for sign in text)}" if text else ""
