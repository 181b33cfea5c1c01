"""What a MODEL or a bundle on the command line means."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from sdxl_trt.paths import DEMO_MODELS, bundles_folder, cache_folder, model_name
from sdxl_trt.progress import Progress, silent

DEFAULT_MODEL = "stabilityai/stable-diffusion-xl-base-1.0"

_HUB_ID = re.compile(
    r"(?P<repository>\w[\w.-]*/(?![\w.-]*\.(safetensors|ckpt)$)\w[\w.-]*)"
    r"(/(?P<file>[^@]+\.safetensors))?"
    r"(@(?P<revision>[\w./-]+))?"
)
"""owner/name, owner/name/file.safetensors, and either of them @revision."""


def model_path(model: str, progress: Progress = silent) -> Path:
    """Where a MODEL is: one of `DEMO_MODELS`, a path, or an id on the Hugging Face hub, fetched unless it is here.

    Raises:
        CheckpointError: the hub has no such model, or cannot be reached, or it is no SDXL.
        OutputError: there is no room for it.
    """
    if model in DEMO_MODELS:
        return DEMO_MODELS[model]
    hub = on_hub(model)
    if hub is None:
        return Path(model)
    from sdxl_trt.export.hub import fetch_model

    return fetch_model(hub["repository"], file=hub["file"], revision=hub["revision"], progress=progress)


def on_hub(model: str) -> re.Match[str] | None:
    """The repository, file and revision of a MODEL that is an id on the hub; a path that exists is none."""
    return None if Path(model).exists() else _HUB_ID.fullmatch(model)


def export_folder(model: Path, vae: Path | None = None) -> Path:
    """Where the export of a model, with another VAE or its own, is kept between builds."""
    paths = "\n".join(str(path.resolve()) for path in (model, vae) if path)
    digest = hashlib.sha256(paths.encode()).hexdigest()
    return cache_folder() / "exports" / f"{model_name(model)}-{digest[:8]}"


def newest_first() -> list[Path]:
    """The bundles of the data folder, the last built first."""
    manifests = bundles_folder().glob("*/bundle.json")
    return [path.parent for path in sorted(manifests, key=lambda path: path.stat().st_mtime, reverse=True)]
