"""What a MODEL or a bundle on the command line means."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from sdxl_trt.errors import CheckpointError
from sdxl_trt.paths import DEMO_CHECKPOINT, bundles_folder, cache_folder

DEFAULT_MODEL = "stabilityai/stable-diffusion-xl-base-1.0"

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def model_folder(model: str) -> Path:
    """The folder of a MODEL: 'demo', or a path.

    Raises:
        CheckpointError: a hub id, which this version does not fetch.
    """
    if model == "demo":
        return DEMO_CHECKPOINT
    path = Path(model)
    if not path.exists() and _HUB_ID.fullmatch(model):
        raise CheckpointError(
            f"{model} is not on this machine, and this version does not fetch models",
            got="a hub id",
            expected="a folder in diffusers' layout, or 'demo' for the model that comes with sdxl-trt",
            fix=f"huggingface-cli download {model} --local-dir DIR, then give DIR; or give demo",
        )
    return path


def export_folder(model: Path) -> Path:
    """Where a model's export is kept between builds."""
    path = str(model.resolve())
    return cache_folder() / "exports" / f"{model.resolve().name}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def newest_first() -> list[Path]:
    """The bundles of the data folder, the last built first."""
    manifests = bundles_folder().glob("*/bundle.json")
    return [path.parent for path in sorted(manifests, key=lambda path: path.stat().st_mtime, reverse=True)]
