"""Bundles that only the runtime's tests need."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from sdxl_trt.bundle import MANIFEST_NAME, read_manifest, write_manifest
from sdxl_trt.bundle.hosts import ON_CUDA


@pytest.fixture(scope="session")
def cuda_bundle(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The processor's float32 graphs as a GPU's: what differs then is the device, and nothing else."""
    bundle = tmp_path_factory.mktemp("cuda") / "bundle"
    shutil.copytree(demo_bundle, bundle, copy_function=os.link)
    manifest = read_manifest(bundle)
    targets = tuple(dataclasses.replace(target, flavour=ON_CUDA) for target in manifest.targets)
    (bundle / MANIFEST_NAME).unlink()  # not through the link
    write_manifest(bundle, dataclasses.replace(manifest, targets=targets))
    return bundle
