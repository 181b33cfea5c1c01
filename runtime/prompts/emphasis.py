"""How the weights of a prompt act on its hidden states."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import UnknownName, UsageError

OFF, KEEP_MEAN, INTERPOLATE = "off", "a1111", "interpolate"

WEIGHTINGS = {
    OFF: "brackets are text, as for diffusers",
    KEEP_MEAN: "hidden states times their weights, then scaled to the mean they had: A1111's default, 'Original'",
    "a1111-no-norm": "hidden states times their weights: A1111's 'No norm'",
    INTERPOLATE: "from the empty prompt's hidden states towards the prompt's and beyond: ComfyUI's, and compel's for "
    "weights of 1 and more (for smaller ones compel also masks words out, which engines have no input for)",
}
"""What `weighting` may be. All but 'off' read A1111's syntax."""


def check_weighting(value: object) -> str:
    """A weighting by name.

    Raises:
        UsageError: it is none of `WEIGHTINGS`.
    """
    if not isinstance(value, str):
        raise UsageError(
            "weighting cannot be used", got=repr(value), expected=", ".join(WEIGHTINGS), fix='weighting="a1111"'
        )
    if value not in WEIGHTINGS:
        raise UnknownName("weighting", value, WEIGHTINGS)
    return value


def emphasise(
    hidden: NDArray[Any], weights: tuple[float, ...], *, base: NDArray[Any] | None, keep_mean: bool
) -> NDArray[Any]:
    """The hidden states [tokens, C] of one chunk, weighted; as they are where every weight is 1.

    Args:
        hidden: of the chunk.
        weights: [tokens].
        base: hidden states [tokens, C] that weight 0 leads to; zeros where not given.
        keep_mean: scale the result to the mean over all tokens and channels that there was before.
    """
    if set(weights) == {1.0}:
        return hidden
    states, factors = hidden.astype(np.float32), np.array(weights, np.float32)[:, None]
    origin = np.float32(0) if base is None else base.astype(np.float32)
    weighted = origin + (states - origin) * factors
    mean = weighted.mean(dtype=np.float64)
    if keep_mean and mean:
        weighted *= np.float32(states.mean(dtype=np.float64) / mean)
    return weighted.astype(hidden.dtype)
