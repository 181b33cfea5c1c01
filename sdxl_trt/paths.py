"""Places on this machine: the demo checkpoint, and where exports and bundles go when nobody says (XDG directories)."""

from __future__ import annotations

import os
from pathlib import Path

DEMO_CHECKPOINT = Path(__file__).with_name("demo") / "sdxl-shapes"
"""The demo model that comes with the package, in diffusers' layout."""
DEMO_MODELS = {
    "demo": DEMO_CHECKPOINT,
    "demo-turbo": DEMO_CHECKPOINT.with_name("sdxl-shapes-turbo"),
    "demo-refiner": DEMO_CHECKPOINT.with_name("sdxl-shapes-refiner"),
}
"""The demo model, its student for one to four steps, and its refiner, by the names they have as a MODEL."""


def model_name(path: Path) -> str:
    """What the model at a path is called: as its folder or its file; in huggingface_hub's cache, as its repository.

    That cache names folders models--<owner>--<name>/snapshots/<commit>.
    """
    if path.is_file():
        return path.stem
    folder = path.resolve()
    if folder.parent.name == "snapshots":
        return folder.parents[1].name.rpartition("--")[2]
    return folder.name


def bundles_folder() -> Path:
    """Where bundles go by default: $XDG_DATA_HOME/sdxl-trt/bundles (~/.local/share/sdxl-trt/bundles)."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data / "sdxl-trt" / "bundles"


def cache_folder() -> Path:
    """Where exports are kept between builds: $XDG_CACHE_HOME/sdxl-trt (~/.cache/sdxl-trt). Safe to delete."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdxl-trt"


def config_folder() -> Path:
    """Where this user says how things shall be: $XDG_CONFIG_HOME/sdxl-trt (~/.config/sdxl-trt)."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "sdxl-trt"
