"""How far each evaluation is guided: one number for a run, one for each step, or off after a part of the steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime.checks import check_number
from sdxl_trt.runtime.request import Resolved

MOST_GUIDANCE = 1000.0


def check_guidance(value: float | Sequence[float], embedded: bool) -> float | tuple[float, ...]:
    """One number, or one for each step; a UNet that is told the guidance is told it once."""
    if isinstance(value, list | tuple | np.ndarray) and len(value) and not embedded:
        return tuple(check_number("guidance", each, most=MOST_GUIDANCE) for each in value)
    return check_number("guidance", value, most=MOST_GUIDANCE)


def guidances(settings: Resolved, steps: int, evaluations: int) -> NDArray[np.float32]:
    """The guidance of each evaluation [evaluations] of a run of so many steps; 1 where it is off.

    Raises:
        UsageError: the request has another number of them than there are steps.
    """
    values = np.full(steps, settings.guidance) if isinstance(settings.guidance, float) else np.array(settings.guidance)
    if len(values) != steps:
        raise UsageError(
            "guidance has a wrong number of values",
            got=f"{len(values)}",
            expected=f"one number, or {steps}: one for each step that is done",
            fix=f"guidance={settings.guidance[0]:g}" if isinstance(settings.guidance, tuple) else "",
        )
    values[round(steps * settings.guidance_end) :] = 1.0
    order = -(-evaluations // steps)
    return values[np.minimum(np.arange(evaluations) // order, steps - 1)].astype(np.float32)
