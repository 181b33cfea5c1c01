"""Manifests that are valid: what the real types write, of each kind that a host meets."""

from __future__ import annotations

import dataclasses
import json

from sdxl_trt.bundle import Blob, Chunk, EngineEntry, Manifest, Refiner, Target
from sdxl_trt.spec import ModelSpec, Profile, TensorSpec, Term, TextEncoderSpec, UNetSpec, VaeSpec, Work

_CHUNKS = tuple(Chunk(sha256=letter * 64, bytes=size) for letter, size in (("a", 30), ("b", 12)))
_CUT = Blob(sha256="c" * 64, bytes=42, chunks=_CHUNKS)
_WHOLE, _WEIGHTS = (Blob(sha256=letter * 64, bytes=7) for letter in "de")

_ENCODER = TextEncoderSpec(
    name="text_encoder",
    width=6,
    hidden=3,
    pooled=5,
    tokens=7,
    vocabulary=11,
    bos=9,
    eos=10,
    pad=10,
    pool_at="argmax",
)
_BASE = ModelSpec(
    name="small",
    content="f" * 64,
    kind="base",
    text_encoders=(_ENCODER, dataclasses.replace(_ENCODER, name="text_encoder_2")),
    unet=UNetSpec(channels=4, text=12, pooled=5, time_ids=6, guidance_embedding=0, sample_size=16),
    vae=VaeSpec(scaling_factor=0.13025, force_upcast=True, latents_mean=(0.5, -1.0)),
    zero_negative=True,
    scheduler={"_class_name": "EulerDiscreteScheduler", "trained_betas": None, "nested": {"list": [1, 2.5, "x"]}},
)
_REFINER = dataclasses.replace(
    _BASE,
    name="refiner",
    kind="refiner",
    text_encoders=_BASE.text_encoders[1:],
    unet=dataclasses.replace(_BASE.unet, time_ids=5),
)


def _engine(file: Blob, *weights: Blob) -> EngineEntry:
    return EngineEntry(
        key="0" * 64,
        file=file,
        weights=weights,
        inputs=(TensorSpec(name="latents", dtype="float32", shape=("slots", 4, "height", "width")),),
        outputs=(TensorSpec(name="image", dtype="float32", shape=("slots", 3, "8*height", "8*width")),),
        work=Work(
            parameters=10,
            weights=40,
            operation_terms=(Term(coefficient=2.5, powers={"slots": 1, "height": 2}),),
            traffic_terms=(Term(coefficient=3.0, powers={}),),
            live_terms=((Term(coefficient=1.0, powers={"slots": 1}),),),
        ),
    )


def _target(name: str, flavour: str, *sms: int, refiner: bool = False) -> Target:
    engine = _engine(_CUT) if sms else _engine(_WHOLE, _WEIGHTS)
    return Target(
        name=name,
        flavour=flavour,
        flavour_version="1.31.1",
        sms=sms,
        processor="x86_64",
        precision="float32",
        profile=Profile.make(smallest=(64, 64), best=(128, 128), largest=(192, 192), batch=2),
        accepted=True,
        engines={"step": engine, "vae_decoder": engine},
        refiner={"step": engine} if refiner else {},
    )


def _manifest(*targets: Target, refiner: Refiner | None = None) -> str:
    files = {"licence/LICENSE.md": _WHOLE, "text_encoder/tokenizer.json": _WEIGHTS}
    manifest = Manifest(
        tool="0.1.0",
        created="2026-01-02T03:04:05+00:00",
        model=_BASE,
        files=files,
        targets=targets,
        refiner=refiner,
    )
    return json.dumps(dataclasses.asdict(manifest))


DOCUMENTS = (
    _manifest(_target("cpu", "onnxruntime")),
    _manifest(_target("rtx", "tensorrt-rtx", 86, 89), _target("cpu", "onnxruntime")),
    _manifest(
        _target("both", "onnxruntime", refiner=True),
        _target("cuda", "onnxruntime-cuda"),
        refiner=Refiner(model=_REFINER, files={"licence/LICENSE.md": _WHOLE}),
    ),
)
"""For the processor; for GPUs with an engine in chunks; with a refiner."""
