"""What goes wrong on the way to a server, in our words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx2

from sdxl_trt.errors import TransferError, Unreachable
from sdxl_trt.ship.failures import Untrusted, sending
from sdxl_trt.ship.retrying import Transient


@contextlib.contextmanager
def asking(address: str, timeout: float) -> Iterator[None]:
    """Errors of the network as ours.

    Args:
        address: of the server.
        timeout: seconds that are waited for a sign of it.

    Raises:
        Unreachable: there is nobody, or nobody to trust.
        TransferError: cut off, or too slow, or no answer that can be read.
    """
    try:
        with sending(address):
            yield
    except Unreachable as error:
        if isinstance(error, Untrusted) or not isinstance(error.__cause__, httpx2.HTTPError):
            raise  # what answers said so itself
        raise Unreachable(
            error.what,
            got=error.got,
            expected="a server started by `sdxl-trt serve`",
            fix="check the address and the port, and that the server runs",
        ) from error
    except (httpx2.DecodingError, Transient) as error:
        raise _broken(address, timeout, error) from error


def _broken(address: str, timeout: float, error: httpx2.DecodingError | Transient) -> TransferError:
    cause = error.__cause__
    if isinstance(error, httpx2.DecodingError) or isinstance(cause, httpx2.SSEError):
        return TransferError(
            f"{address} answers as `sdxl-trt serve` does not",
            got=str(cause or error),
            expected="JSON, or a stream of events",
            fix="check the address",
        )
    if isinstance(cause, httpx2.TimeoutException):
        return TransferError(
            f"{address} was silent for too long",
            got=f"nothing within {timeout:g} s",
            expected="an answer, or a part of one",
            fix="a longer timeout, fewer steps, or a server with less to do",
        )
    return TransferError(str(error), expected="a whole answer", fix="ask again: what was begun for it is taken back")
