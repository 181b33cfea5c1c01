"""The models that tests run on: checkpoints, exports and bundles, made once and kept until their makers change."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import tiny_sdxl
from sdxl_trt.bundle import MANIFEST_NAME
from sdxl_trt.exported import INDEX_NAME
from sdxl_trt.paths import DEMO_CHECKPOINT

TINY: dict[str, dict[str, Any]] = {
    "epsilon": {"half": True, "seed": 1},
    "v": {"prediction": "v_prediction", "legacy_pooling": False, "levels": 3, "shard": "400KB", "seed": 2},
    "refiner": {"refiner": True, "seed": 3, "like": "epsilon"},
    "inpaint": {"channels": 9, "guidance_embedding": 40, "half": True, "seed": 4},
    # Segmind SSD-1B's blocks (its transformers differ from layer to layer, the middle has none) with the latents of
    # Playground v2.5
    "relative": {
        "unet_config": {
            "layers_per_block": 2,
            "mid_block_type": "UNetMidBlock2D",
            "transformer_layers_per_block": [1, [1, 2]],
            "reverse_transformer_layers_per_block": [[1, 2, 1], 1],
        },
        "vae_config": {
            "scaling_factor": 0.5,
            "latents_mean": [-1.6574, 1.886, -1.383, 2.5155],
            "latents_std": [8.4927, 5.9022, 6.5498, 5.2299],
        },
        "seed": 5,
    },
}
"""Tiny SDXLs with random weights: fp16 in one file, fp32 in shards, and what only later versions run."""

NAMES = ("demo", *TINY)

HALF = ("demo", "refiner")
"""Models exported in float16 too: one with weights in float16, one in float32."""

EXPORT = """
import sys
from pathlib import Path
from sdxl_trt.export.run import export_model

model, folder, *precisions = sys.argv[1:]
export_model(Path(model), Path(folder), precisions=precisions, bare_unet="float16" in precisions)
"""

BUILD = """
import sys
from pathlib import Path
from sdxl_trt.engines.build import build
from sdxl_trt.engines.targets import resolve_targets
from sdxl_trt.spec import Profile

export, bundle, *refiner = map(Path, sys.argv[1:])
profile = Profile.make(smallest=(64, 64), best=(128, 128), largest=(256, 256), batch=4)
build(export, bundle, resolve_targets(["cpu"]), profile=profile, refiner=refiner[0] if refiner else None)
"""


@dataclass(frozen=True)
class Models:
    """Makes what is asked for, in processes of their own, so that nothing of it lingers in that of the tests."""

    root: Path

    def checkpoint(self, name: str) -> Path:
        """A folder in diffusers' layout."""
        folder = self._folder(name) / "model"
        if name == "demo":
            return DEMO_CHECKPOINT
        with self._lock(name):
            if not (folder / "model_index.json").exists():
                like = TINY[name].get("like")
                tiny_sdxl.make(folder, **TINY[name] | {"like": self.checkpoint(like) if like else None})
        return folder

    def export(self, name: str) -> Path:
        """Its graphs in float32; those of HALF in float16 too, with the bare UNet."""
        checkpoint, folder = self.checkpoint(name), self._folder(name) / "export"
        precisions = ["float32", "float16"] if name in HALF else ["float32"]
        with self._lock(name):
            if not (folder / INDEX_NAME).exists():
                subprocess.run([sys.executable, "-c", EXPORT, str(checkpoint), str(folder), *precisions], check=True)
        return folder

    def bundle(self, name: str, refiner: str = "") -> Path:
        """Its engines for the CPU, 64 to 256 pixels and up to four pictures at once; and those of a refiner."""
        exports = [self.export(each) for each in (name, refiner) if each]
        bundle = self._folder(name) / f"bundle-{refiner}-{digest('engines', 'bundle')}"
        with self._lock(name):
            if not (bundle / MANIFEST_NAME).exists():
                paths = [exports[0], bundle, *exports[1:]]
                subprocess.run([sys.executable, "-c", BUILD, *map(str, paths)], check=True)
        return bundle

    def _folder(self, name: str) -> Path:
        folder = self.root / digest("export", "spec", "demo") / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _lock(self, name: str) -> Any:
        """Held by one session at a time; closing the file releases it."""
        lock = (self._folder(name) / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        return lock


def open_models(root: Path) -> Models:
    """The models below a cache folder; those of a day ago and older are removed."""
    for other in root.iterdir():
        if other.stat().st_mtime < time.time() - 24 * 3600:  # younger ones may be another session's
            shutil.rmtree(other)
    return Models(root)


def digest(*rooms: str) -> str:
    """Of everything that decides what these rooms make, and of what makes the models."""
    package = DEMO_CHECKPOINT.parents[1]
    sources = [path for room in rooms for path in (package / room).resolve().rglob("*") if path.suffix != ".pyc"]
    content = hashlib.sha256()
    for path in sorted([*sources, Path(tiny_sdxl.__file__), *Path(__file__).parent.glob("*.py")]):
        if path.is_file():
            content.update(path.name.encode() + b"\0" + path.read_bytes())
    return content.hexdigest()[:16]
