"""Small manifests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from sdxl_trt.bundle import Blob, BlobStore, EngineEntry, Manifest, Target
from sdxl_trt.spec import ModelSpec, Profile, TensorSpec, Term, UNetSpec, VaeSpec, Work

A, B, C, D = (Blob(sha256=letter * 64, bytes=3) for letter in "abcd")


def make_target(name: str, **changes: Any) -> Target:
    entry = EngineEntry(
        key="c" * 64,
        file=A,
        weights=(B,),
        inputs=(TensorSpec(name="latents", dtype="float32", shape=("slots", 4, "height", "width")),),
        outputs=(TensorSpec(name="image", dtype="float32", shape=("slots", 3, "8*height", "8*width")),),
        work=Work(
            parameters=10,
            weights=40,
            operation_terms=(Term(coefficient=2.5, powers={"slots": 1, "height": 2, "width": 2}),),
            traffic_terms=(Term(coefficient=3.0, powers={}),),
            live_terms=((Term(coefficient=1.0, powers={"slots": 1}),),),
        ),
    )
    target = Target(
        name=name,
        flavour="onnxruntime",
        flavour_version="1.31.1",
        sms=(),
        processor="x86_64",
        precision="float32",
        profile=Profile.make(smallest=(64, 64), best=(128, 128), largest=(192, 192), batch=2),
        accepted=True,
        engines={"vae_decoder": entry},
    )
    return dataclasses.replace(target, **changes)


def make_manifest(*targets: Target) -> Manifest:
    model = ModelSpec(
        name="small",
        content="d" * 64,
        kind="base",
        text_encoders=(),
        unet=UNetSpec(channels=4, text=8, pooled=8, time_ids=6, guidance_embedding=0, sample_size=16),
        vae=VaeSpec(scaling_factor=0.13025, force_upcast=True, latents_mean=(0.5, -1.0)),
        zero_negative=True,
        scheduler={"_class_name": "EulerDiscreteScheduler", "trained_betas": None, "nested": {"list": [1, 2.5, "x"]}},
    )
    files = {"licence/LICENSE.md": A}
    return Manifest(tool="0.1.0", created="2026-01-02T03:04:05+00:00", model=model, files=files, targets=targets)


def put_placeholders(bundle: Path, *targets: Target) -> None:
    """Files of the names and sizes that these targets need, and of another content."""
    manifest = make_manifest(*targets)
    folder = BlobStore(bundle).folder
    folder.mkdir(parents=True, exist_ok=True)
    for blob in manifest.blobs(*targets).values():
        for part in blob.parts:
            (folder / part.sha256).write_bytes(bytes(part.bytes))
