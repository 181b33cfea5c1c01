"""Small bundles to be shipped: a plan in chunks for one GPU, another for any RTX GPU, and graphs for the processor."""

from __future__ import annotations

import dataclasses
import platform
import random
from pathlib import Path
from typing import Any

from manifests import make_manifest, make_target

from sdxl_trt.bundle import Blob, BlobStore, Host, Manifest, Target, write_manifest

AVERAGE = 2**15
"""Bytes of a chunk, about."""

RTX = "1.7.0.52"
EXACT, PORTABLE, PROCESSOR = "rtx-sm89", "rtx-portable", "onnxruntime-cpu"


def content(seed: object, size: int) -> bytes:
    """The same bytes for the same seed; no two chunks of them are alike."""
    return random.Random(str(seed)).randbytes(size)


def make_bundle(
    folder: Path, *, size: int = 400_000, seed: str = "a", plan: bytes = b"", created: str = "2026-01-02T03:04:05+00:00"
) -> Manifest:
    """Write a bundle.

    Args:
        folder: its own.
        size: bytes of each plan and of the weights.
        seed: of the weights.
        plan: stands before those of the plans.
        created: its time.
    """
    store = BlobStore(folder, average=AVERAGE)
    with store.lock():
        exact = _chunked(store, plan + content(f"plan {seed}", size))
        portable = _chunked(store, content(f"plan {seed}", size) + content("portable", size // 4))
        graph = store.put_bytes(content(f"graph {seed}", 5000))
        weights = store.name_chunks(store.put_bytes(content(f"weights {seed}", size)))
        table = store.name_chunks(store.put_bytes(content(f"table {seed}", size // 2)))
        files = {
            "text_encoder/token_embedding.npy": table,
            "text_encoder/tokenizer.json": store.put_bytes(b'{"tokens": []}'),
            "licence/LICENSE.md": store.put_bytes(b"Do what is right."),
        }
        manifest = make_manifest(
            _target(EXACT, exact, flavour="tensorrt-rtx", flavour_version=RTX, sms=(89,)),
            _target(PORTABLE, portable, flavour="tensorrt-rtx", flavour_version=RTX),
            _target(PROCESSOR, graph, weights, flavour="onnxruntime", flavour_version="1.20"),
        )
        manifest = dataclasses.replace(manifest, files=files, created=created)
        write_manifest(folder, manifest)
    return manifest


def _chunked(store: BlobStore, data: bytes) -> Blob:
    with store.chunk_writer() as chunker:
        chunker.write(data)
    return chunker.blob()


def _target(name: str, file: Blob, *weights: Blob, **changes: Any) -> Target:
    target = make_target(name, processor=platform.machine(), **changes)
    engine = dataclasses.replace(target.engines["vae_decoder"], file=file, weights=weights)
    return dataclasses.replace(target, engines={"vae_decoder": engine})


def host(sm: int | None) -> Host:
    """One that has every library."""
    flavours = {"onnxruntime": "1.31"} if sm is None else {"tensorrt-rtx": RTX}
    return Host(processor=platform.machine(), flavours=flavours, sm=sm)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder that is not about the writing itself."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", ".pulled.json")
    }
