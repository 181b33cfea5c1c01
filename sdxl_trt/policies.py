"""Names of what engines do with memory while others run: what they mean is in `sdxl_trt.runtime.policy`."""

from __future__ import annotations

POLICIES = ("resident", "swap", "stream")
"""The fastest first."""
AUTO = "auto"
"""The first that fits."""
