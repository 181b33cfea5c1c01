"""One column of a sampler's table: everything about a UNet evaluation that changes from step to step.

With the state z [K, 4, h, w] (z₀ the current sample, then whatever history the sampler keeps), one evaluation is

    sample = Σ_k input[k] · z_k                      what the UNet sees (K = HISTORY = 6)
    ε      = ε_u + guidance · (ε_c − ε_u)            guided; then rescaled (arXiv 2305.08891, section 3.4)
    z'_j   = Σ_k transition[j, k] · z_k + output[j] · ε + noise[j] · n
    x̂₀     = x0_input · sample + x0_output · ε       the picture as it looks from here, for previews
    z'₀    = m · z'₀ + (1 − m) · (blend_image · image + blend_noise · n₀)      inpainting; m = 1 where nothing is kept

A column is one float32 vector, so that a step's whole change is one small copy. Timestep, guidance and rescale are in
it too: they belong to a slot, and may change with every step; the graph gathers the timestep per row.
"""

from __future__ import annotations

from typing import Final

HISTORY = 6
"""K: latents a state holds, for all samplers."""


class Column:
    """Where each field lies in the column vector (float32 elements)."""

    timestep: Final = slice(0, 1)
    guidance: Final = slice(1, 2)
    rescale: Final = slice(2, 3)
    input: Final = slice(3, 9)
    transition: Final = slice(9, 45)
    """[K, K], row-major: element j · K + k takes z_k into z'_j."""
    output: Final = slice(45, 51)
    noise: Final = slice(51, 57)
    blend_image: Final = slice(57, 58)
    blend_noise: Final = slice(58, 59)
    x0_input: Final = slice(59, 60)
    x0_output: Final = slice(60, 61)


COLUMN_WIDTH: Final = Column.x0_output.stop
