"""How a plan gets from its file into TensorRT: piece by piece, each checked, as TensorRT asks."""

from __future__ import annotations

from typing import Any

from sdxl_trt.bundle.checked import CheckedBlob
from sdxl_trt.errors import BundleError


def seek(trt: Any, plan: CheckedBlob, offset: int, where: Any) -> bool:
    """Move a plan's position as TensorRT names it: from the start, from here, or back from the end."""
    origin = {trt.SeekPosition.SET: 0, trt.SeekPosition.CUR: plan.position, trt.SeekPosition.END: plan.size}[where]
    position = origin - abs(offset) if where == trt.SeekPosition.END else origin + offset
    if not 0 <= position <= plan.size:
        return False
    plan.position = position
    return True


def stream_reader(trt: Any, plan: CheckedBlob) -> Any:
    """An IStreamReaderV2 of a plan; what went wrong there is in `error` (a BundleError or None).

    An exception must not cross into TensorRT; it ends a reading that gives nothing.
    """

    class PlanReader(trt.IStreamReaderV2):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.error: BundleError | None = None

        def read(self, size: int, _stream: int) -> bytes:
            try:
                return plan.read(size)
            except BundleError as error:
                self.error = error
                return b""

        def seek(self, offset: int, where: Any) -> bool:
            return seek(trt, plan, offset, where)

    return PlanReader()
