"""The events of a stream: pictures on their way, and when they are done."""

from __future__ import annotations

from sdxl_trt.client.answers import parse_object, read_partial, read_picture
from sdxl_trt.client.failures import error_of, read_event
from sdxl_trt.client.pictures import Event
from sdxl_trt.errors import TransferError

MOST_EVENT = 2**28
"""Bytes of an event that are taken."""
_PARTIAL, _COMPLETED, _ERROR = ".partial_image", ".completed", "error"


class Stream:
    """Reads events, and knows when it has seen all of them.

    Args:
        pictures: how many were asked for.
        request_id: the server's name for the request.
    """

    def __init__(self, pictures: int, request_id: str | None) -> None:
        self._left, self._request_id = pictures, request_id

    def read(self, data: str) -> Event | None:
        """What an event says; None: nothing that is known here.

        Args:
            data: of the event.

        Raises:
            Refused, Failed, Busy: what ended the request instead.
            TransferError: it is no event of `sdxl-trt serve`.
        """
        fields = parse_object(data.encode("utf-8", "surrogatepass"))
        kind = str(fields.get("type"))
        if kind == _ERROR:
            error = fields.get("error")
            raise error_of(read_event(error if isinstance(error, dict) else {}, self._request_id))
        if kind.endswith(_PARTIAL):
            return read_partial(fields)
        if not kind.endswith(_COMPLETED):
            return None
        self._left -= 1
        return read_picture(fields)

    def check_ended(self) -> None:
        """There are no more events.

        Raises:
            TransferError: some are missing.
        """
        if self._left > 0:
            raise TransferError(
                "the stream ended too early",
                got=f"{self._left} pictures missing",
                expected="all that were asked for",
                fix="ask again; the server's log says why, if it was the server",
            )
