"""How far two arrays are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def relative_error(measured: NDArray[Any], reference: NDArray[Any], required: float, what: str) -> float:
    """Largest difference over the reference's largest magnitude; printed beside what is required."""
    assert measured.shape == reference.shape, (what, measured.shape, reference.shape)
    assert np.isfinite(measured).all(), what
    error = float(np.abs(measured.astype(np.float64) - reference).max() / np.abs(reference).max())
    print(f"{what}: max relative error measured {error:.1e}, required {required:.0e}")
    return error
