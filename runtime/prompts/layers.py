"""Which of a text encoder's hidden states condition the UNet."""

from __future__ import annotations

from numbers import Integral

from sdxl_trt.errors import UsageError
from sdxl_trt.spec import ModelSpec

_LAST = 2
"""SDXL reads the states before the last layer: the second from the end."""


def layer(clip_skip: int) -> int:
    """The index, from the end, into a text encoder's `hidden` output."""
    return -(clip_skip + _LAST)


def check_clip_skip(value: object, model: ModelSpec) -> int:
    """How many further layers to leave out, as diffusers counts them: 0, and None, for none.

    Raises:
        UsageError: no integer, negative, or more than the smaller text encoder has.
    """
    if value is None:
        return 0
    most = min(encoder.hidden for encoder in model.text_encoders) - _LAST
    if not isinstance(value, Integral) or isinstance(value, bool) or not 0 <= int(value) <= most:
        raise UsageError(
            "clip_skip cannot be used",
            got=f"{value!r:.80}",
            expected=f"an integer from 0 to {most}: further layers that both text encoders leave out",
            fix="clip_skip=1; where others call SDXL's own layer 'clip skip 2', that is 0 here",
        )
    return int(value)
