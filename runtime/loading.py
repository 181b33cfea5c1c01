"""A bundle's target, opened: its engines, tokenizers and embedding tables, every file checked before it is read."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.bundle import BlobStore, Manifest, Target, read_manifest
from sdxl_trt.errors import BundleError, UsageError
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.device import Device
from sdxl_trt.runtime.engine import Engine
from sdxl_trt.runtime.host import target_for_host
from sdxl_trt.runtime.ort import OrtEngine
from sdxl_trt.runtime.ort_cuda import CudaOrtEngine
from sdxl_trt.runtime.prompts.encoder import TextEncoder
from sdxl_trt.runtime.tokenizer import Tokenizer
from sdxl_trt.runtime.trt import LIBRARIES, TrtEngine
from sdxl_trt.spec import ModelSpec, TextEncoderSpec, graph_spec, model_graphs

_REBUILD = "build the bundle again with this version of sdxl-trt"


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """A model that is ready to run."""

    model: ModelSpec
    target: Target
    encoders: tuple[TextEncoder, ...]
    step: Engine
    decoder: Engine
    open_encoder: Callable[[], Engine]
    """Opens the VAE's encoder, which only pictures from pictures need."""


def load(bundle: Path, *, threads: int | None = None, device: Device | None = None) -> Loaded:
    """Open the target of a bundle that fits this host.

    Args:
        bundle: its folder.
        threads: that one engine may use on the processor; as many as this process may run on when not given.
        device: where engines shall run; the processor when not given.

    Raises:
        UsageError: `threads` is not positive.
        NoTargetForHost: nothing in it runs here.
        BundleError: it is damaged, hostile or of an unknown version.
        FlavourUnavailable: the library that its engines need cannot use the GPU.
        OutOfMemory: the GPU has too little memory.
    """
    if threads is not None and threads < 1:
        raise UsageError("threads cannot be used", got=str(threads), expected="at least 1", fix="leave it out")
    manifest = read_manifest(bundle)
    target = target_for_host(manifest, bundle, device)
    for name in model_graphs(manifest.model):
        _check_entry(manifest.model, target, name)
    store = BlobStore(bundle)
    open_engine = _opener(store, target, device, threads)
    # Hashing a file and optimising a graph leave Python's lock; a GPU is for one thread at a time.
    with ThreadPoolExecutor(1 if isinstance(device, CudaDevice) else None) as pool:
        engines = {name: pool.submit(open_engine, name) for name in _graphs(manifest.model)}
        encoders = tuple(
            _text_encoder(store, manifest, spec, engines[spec.name]) for spec in manifest.model.text_encoders
        )
        return Loaded(
            model=manifest.model,
            target=target,
            encoders=encoders,
            step=engines["step"].result(),
            decoder=engines["vae_decoder"].result(),
            open_encoder=lambda: open_engine("vae_encoder"),
        )


def _opener(store: BlobStore, target: Target, device: Device | None, threads: int | None) -> Callable[[str], Engine]:
    """What opens an engine of a target by its graph's name."""
    if not isinstance(device, CudaDevice):
        return lambda name: OrtEngine(store, target.engines[name], name, threads=threads)
    if target.flavour in LIBRARIES:
        return lambda name: TrtEngine(store, target, name, device, "loop" if name == "step" else "side")
    return lambda name: CudaOrtEngine(store, target.engines[name], name, device)


def _graphs(model: ModelSpec) -> tuple[str, ...]:
    """What text to picture needs, the largest first."""
    return ("step", "vae_decoder", *(encoder.name for encoder in model.text_encoders))


def _check_entry(model: ModelSpec, target: Target, name: str) -> None:
    """Make sure that a target has an engine, with the tensors that this version binds."""
    if name not in target.engines:
        raise BundleError(
            f"target {target.name} is not complete", got=f"no {name}", expected=f"a {name} engine", fix=_REBUILD
        )
    entry = target.engines[name]
    spec = graph_spec(name, model, target.precision)
    for kind, expected, got in (("inputs", spec.inputs, entry.inputs), ("outputs", spec.outputs, entry.outputs)):
        if set(expected) != set(got):
            different = ", ".join(sorted({tensor.name for tensor in set(expected) ^ set(got)}))
            raise BundleError(
                f"the {kind} of {name} are not those of its model", got=f"other tensors: {different}", fix=_REBUILD
            )


def _text_encoder(store: BlobStore, manifest: Manifest, spec: TextEncoderSpec, engine: Future[Engine]) -> TextEncoder:
    tokenizer = _verified(store, manifest, f"{spec.name}/tokenizer.json").read_bytes()
    return TextEncoder(
        spec=spec,
        tokenizer=Tokenizer(tokenizer, spec),
        embeddings=_embeddings(_verified(store, manifest, f"{spec.name}/token_embedding.npy"), spec),
        engine=engine.result(),
    )


def _verified(store: BlobStore, manifest: Manifest, name: str) -> Path:
    if name not in manifest.files:
        raise BundleError("the bundle is not complete", got=f"no {name}", expected="one per text encoder", fix=_REBUILD)
    return store.verify(manifest.files[name], name)


def _embeddings(path: Path, spec: TextEncoderSpec) -> NDArray[Any]:
    """The token embedding table [vocabulary, C], mapped."""
    try:
        table = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        raise BundleError(
            f"the token embeddings of {spec.name} cannot be read", got=str(error), fix=_REBUILD
        ) from error
    shape = (spec.vocabulary, spec.width)
    if table.shape != shape or table.dtype not in (np.float16, np.float32):
        raise BundleError(
            f"the token embeddings of {spec.name} are not those of its model",
            got=f"{table.dtype} {list(table.shape)}",
            expected=f"float16 or float32 {list(shape)}",
            fix=_REBUILD,
        )
    return table
