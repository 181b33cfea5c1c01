"""Fixtures for all rooms."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from models import Models, open_models

from sdxl_trt.bundle import MANIFEST_NAME, read_manifest, write_manifest
from sdxl_trt.bundle.hosts import ON_CUDA
from sdxl_trt.paths import DEMO_CHECKPOINT
from sdxl_trt.spec import ModelSpec, TextEncoderSpec, UNetSpec, VaeSpec

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def toy_model() -> ModelSpec:
    """Widths of a model that was never trained, for what only looks at shapes."""
    encoders = tuple(
        TextEncoderSpec(
            name=name,
            width=6,
            hidden=3,
            pooled=5,
            tokens=7,
            vocabulary=11,
            bos=9,
            eos=10,
            pad=pad,
            pool_at="argmax",
        )
        for name, pad in (("text_encoder", 10), ("text_encoder_2", 0))
    )
    return ModelSpec(
        name="toy",
        content="0" * 64,
        kind="base",
        text_encoders=encoders,
        unet=UNetSpec(channels=4, text=12, pooled=5, time_ids=6, guidance_embedding=0, sample_size=16),
        vae=VaeSpec(scaling_factor=0.5, force_upcast=True),
        zero_negative=True,
        scheduler={"_class_name": "EulerDiscreteScheduler"},
    )


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The demo model's checkpoint, in diffusers' layout."""
    return DEMO_CHECKPOINT


@pytest.fixture(scope="session")
def models(pytestconfig: pytest.Config) -> Models:
    """Checkpoints, exports and bundles by name (see tests/support/models.py)."""
    cache = pytestconfig.cache
    assert cache is not None
    return open_models(cache.mkdir("models"))


@pytest.fixture(scope="session")
def demo_bundle(models: Models) -> Path:
    """The demo model built for the CPU, 64 to 256 pixels and up to four images."""
    return models.bundle("demo")


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


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """torch's threads wait busily for one another, for minutes where cores are shared."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
