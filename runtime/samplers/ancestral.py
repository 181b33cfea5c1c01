"""The split of a step into a deterministic way down and fresh noise."""

from __future__ import annotations

import math


def ancestral_step(sigma: float, sigma_next: float) -> tuple[float, float]:
    """(down, up): go down to the one, add noise of the other, and the level is `sigma_next`: down² + up² = next².

    The noise is that of DDPM's posterior (arXiv 2006.11239, equation 7) in terms of σ.
    """
    up = min(sigma_next, math.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2))
    return math.sqrt(sigma_next**2 - up**2), up
