"""Places in the work of a GPU's streams."""

from __future__ import annotations

from typing import cast

from sdxl_trt.runtime.cuda.context import Context, Owned
from sdxl_trt.runtime.device import Stream


class CudaEvent:
    """An event; other streams wait for it on the GPU, the host only where it asks for that."""

    def __init__(self, context: Context) -> None:
        self._context, self._event = context, context.event()

    def record(self, stream: Stream) -> None:
        """Be reached once everything that is on a stream now is done."""
        self._context.enter()
        self._context.record(self._event, cast(Owned, stream).handle)

    def reached(self) -> bool:
        """Whether it is, as it was recorded last."""
        self._context.enter()
        return self._context.reached(self._event)

    def wait(self) -> None:
        """Wait until it is.

        Raises:
            GpuLost: the GPU failed, or does not answer.
        """
        self._context.enter()
        self._context.wait(self._event)

    def hold(self, stream: Owned) -> None:
        """Have what is put on a stream from now on wait for it."""
        self._context.wait_on_gpu(stream.handle, self._event)
