"""Weights and blends beside compel itself, in float32, on the demo model's text encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from closeness import relative_error

from sdxl_trt.runtime import Pipeline

REQUIRED = 5e-6


@pytest.mark.parametrize(
    ("prompt", "its"),
    [
        ("a large red circle on a white background",) * 2,
        ("a large (red:1.3) circle", "a large (red)1.3 circle"),
        ("a (large red:1.5) (circle:1.1) on white", "a (large red)1.5 (circle)1.1 on white"),
        ([("a red circle", 0.7), ("a blue star", 0.3)], '("a red circle", "a blue star").blend(0.7, 0.3)'),
        ([("a red circle", 1.0), ("a blue star", 1.5)], '("a red circle", "a blue star").blend(1, 1.5)'),
    ],
    ids=["plain", "one word", "two weights", "blend", "blend, scaled"],
)
def test_hidden_states_are_compels(demo_bundle: Path, demo_model: Path, prompt: Any, its: str) -> None:
    """Weights above 1, since for smaller ones compel masks words out as well. Its pooled output is no reference: that
    is of the text with brackets, numbers and `.blend` in it.
    """
    import torch
    from compel import CompelForSDXL
    from diffusers import StableDiffusionXLPipeline

    theirs = StableDiffusionXLPipeline.from_pretrained(demo_model, dtype=torch.float32, variant="fp16")
    with torch.no_grad():
        wanted = CompelForSDXL(theirs)(its).embeds[0].numpy()
    got = Pipeline.load(demo_bundle).encode(prompt, weighting="interpolate").hidden
    assert relative_error(got, wanted, REQUIRED, str(prompt)) <= REQUIRED
