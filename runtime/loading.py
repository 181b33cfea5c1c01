"""A bundle's target, opened: its engines, tokenizers and embedding tables, every file checked before it is read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.bundle import Blob, BlobStore, EngineEntry, Target, read_manifest
from sdxl_trt.errors import BundleError, UsageError
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.cuda.arenas import ArenaName
from sdxl_trt.runtime.device import Device, HostDevice
from sdxl_trt.runtime.engine import Engine
from sdxl_trt.runtime.host import target_for_host
from sdxl_trt.runtime.ort import OrtEngine
from sdxl_trt.runtime.ort_cuda import CudaOrtEngine
from sdxl_trt.runtime.policy import Policy, check_policy, decide
from sdxl_trt.runtime.prompts.encoder import TextEncoder
from sdxl_trt.runtime.swapping import SwappedEngine, Turns
from sdxl_trt.runtime.tokenizer import Tokenizer
from sdxl_trt.runtime.trt import LIBRARIES, Parked, ParkingEngine, TrtEngine
from sdxl_trt.spec import ModelSpec, TextEncoderSpec, graph_spec

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
    memory: Policy
    """Where weights are while others are needed."""
    refiner: Loaded | None = None
    """Of the same bundle. Engines and text encoders that both models have alike are the same objects."""


def load(
    bundle: Path,
    *,
    threads: int | None = None,
    refiner: bool = True,
    device: Device | None = None,
    memory: str = "resident",
) -> Loaded:
    """Open the target of a bundle that fits this host.

    Args:
        bundle: its folder.
        threads: that one engine may use on the processor; as many as this process may run on when not given.
        refiner: open the bundle's refiner too, where there is one.
        device: where engines shall run; the processor when not given.
        memory: what engines do while others run; see `sdxl_trt.runtime.policy`.

    Raises:
        UsageError: `threads` is not positive; there is no such policy, or this target cannot do it.
        NoTargetForHost: nothing in it runs here.
        BundleError: it is damaged, hostile or of an unknown version.
        FlavourUnavailable: the library that its engines need cannot use the GPU.
        OutOfMemory: the GPU has too little memory, or by all estimates will have.
    """
    check_policy(memory)
    if threads is not None and threads < 1:
        raise UsageError("threads cannot be used", got=str(threads), expected="at least 1", fix="leave it out")
    manifest = read_manifest(bundle)
    target = target_for_host(manifest, bundle, device)
    second = manifest.refiner if refiner and target.refiner else None
    policy = decide(memory, target, (manifest.model, second.model if second else None), device)
    # Hashing a file and optimising a graph leave Python's lock; a GPU is for one thread at a time.
    with ThreadPoolExecutor(1 if isinstance(device, CudaDevice) else None) as pool:
        source = _Source(store=BlobStore(bundle), target=target, threads=threads, device=device, memory=policy)
        opener = _Opener(source=source, pool=pool, turns=Turns(device or HostDevice(), source.files))
        try:
            loaded = opener.open(manifest.model, manifest.files, target.engines)
            if second is not None:
                loaded = replace(loaded, refiner=opener.open(second.model, second.files, target.refiner))
            opener.turns.expect(*_order(loaded))
            return loaded
        except BaseException:
            opener.close()
            raise


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Opens engines of one target."""

    store: BlobStore
    target: Target
    threads: int | None
    device: Device | None
    memory: Policy

    def opener(self, entry: EngineEntry, name: str) -> Callable[[], Engine]:
        """What opens an engine, and where engines are swapped opens it again and again."""
        if isinstance(self.device, CudaDevice) and self._parks(entry):
            arguments = (self.store, self.target, entry, name, self.device, _arena(name))
            return Parked(functools.partial(ParkingEngine, *arguments))
        return functools.partial(self.open_engine, entry, name)

    def files(self, entry: EngineEntry) -> tuple[Path, ...]:
        """What is read to open an engine."""
        blobs = (entry.file, *entry.weights)
        parts = (part for blob in blobs for part in ((blob,) if self.store.whole(blob) else blob.parts))
        return tuple(map(self.store.path, parts))

    def open_engine(self, entry: EngineEntry, name: str) -> Engine:
        """An engine, open."""
        if not isinstance(self.device, CudaDevice):
            return OrtEngine(self.store, entry, name, threads=self.threads)
        if self.target.flavour in LIBRARIES:
            streams = self._streams(name)
            return TrtEngine(self.store, self.target, entry, name, self.device, _arena(name), streams=streams)
        return CudaOrtEngine(self.store, entry, name, self.device)

    def _streams(self, name: str) -> bool:
        return name == "step" and self.memory.streams

    def _parks(self, entry: EngineEntry) -> bool:
        library = LIBRARIES.get(self.target.flavour)
        return library is not None and library.finishes_engines and self.memory.swaps and not entry.streams


def _order(loaded: Loaded) -> tuple[EngineEntry, ...]:
    """Engines as a picture of text takes them."""
    engines = loaded.target.engines
    refiner = (loaded.target.refiner["step"],) if loaded.refiner else ()
    encoders = (engines[spec.name] for spec in loaded.model.text_encoders)
    return (*encoders, engines["step"], *refiner, engines["vae_decoder"])


def _arena(name: str) -> ArenaName:
    """Where an engine works: what runs in the loop, and what may run beside it."""
    return "loop" if name == "step" else "side"


@dataclass(frozen=True, kw_only=True)
class _Opener:
    """Opens models of one target. What has the same files is opened once."""

    source: _Source
    pool: ThreadPoolExecutor
    turns: Turns
    engines: dict[tuple[Blob, ...], Future[Engine]] = field(default_factory=dict)
    encoders: dict[tuple[Any, ...], TextEncoder] = field(default_factory=dict)

    def open(self, model: ModelSpec, files: Mapping[str, Blob], entries: Mapping[str, EngineEntry]) -> Loaded:
        """A model, the largest engines first."""
        names = ("step", "vae_decoder", *(encoder.name for encoder in model.text_encoders))
        target = self.source.target
        checked = {name: _entry(model, target, entries, name) for name in (*names, "vae_encoder")}
        engines = {name: self._engine(checked[name], name) for name in names}
        encoders = tuple(self._encoder(files, spec, engines[spec.name]) for spec in model.text_encoders)
        encoder = checked["vae_encoder"]
        return Loaded(
            model=model,
            target=target,
            memory=self.source.memory,
            encoders=encoders,
            step=engines["step"].result(),
            decoder=engines["vae_decoder"].result(),
            open_encoder=self._how_to_open(encoder, "vae_encoder"),
        )

    def close(self) -> None:
        """Open no more engines, and release those that are: an error on its way holds on to them."""
        self.pool.shutdown(cancel_futures=True)
        for opened in self.engines.values():
            if not opened.cancelled() and not opened.exception():
                opened.result().close()

    def _engine(self, entry: EngineEntry, name: str) -> Future[Engine]:
        key = (entry.file, *entry.weights)
        if key not in self.engines:
            self.engines[key] = self.pool.submit(self._how_to_open(entry, name))
        return self.engines[key]

    def _how_to_open(self, entry: EngineEntry, name: str) -> Callable[[], Engine]:
        """What opens an engine; where engines are swapped, what makes one that opens when it is used."""
        open_now = self.source.opener(entry, name)
        if self.source.memory.swaps:
            return functools.partial(SwappedEngine, entry, name, self.turns, open_now)
        return open_now

    def _encoder(self, files: Mapping[str, Blob], spec: TextEncoderSpec, engine: Future[Engine]) -> TextEncoder:
        names = [f"{spec.name}/{file}" for file in ("tokenizer.json", "token_embedding.npy")]
        for name in names:
            if name not in files:
                raise BundleError(
                    "the bundle is not complete", got=f"no {name}", expected="one per text encoder", fix=_REBUILD
                )
        key = (spec, engine, *(files[name] for name in names))
        if key not in self.encoders:
            tokenizer, embeddings = (self.source.store.verify(files[name], name) for name in names)
            self.encoders[key] = TextEncoder(
                spec=spec,
                tokenizer=Tokenizer(tokenizer.read_bytes(), spec),
                embeddings=_embeddings(embeddings, spec),
                engine=engine.result(),
            )
        return self.encoders[key]


def _entry(model: ModelSpec, target: Target, entries: Mapping[str, EngineEntry], name: str) -> EngineEntry:
    """An engine's entry, with the tensors that this version binds."""
    if name not in entries:
        raise BundleError(
            f"target {target.name} is not complete",
            got=f"no {name} of {model.name}",
            expected=f"a {name} engine",
            fix=_REBUILD,
        )
    entry = entries[name]
    spec = graph_spec(name, model, target.precision)
    for kind, expected, got in (("inputs", spec.inputs, entry.inputs), ("outputs", spec.outputs, entry.outputs)):
        if set(expected) != set(got):
            different = ", ".join(sorted({tensor.name for tensor in set(expected) ^ set(got)}))
            raise BundleError(
                f"the {kind} of {name} are not those of its model", got=f"other tensors: {different}", fix=_REBUILD
            )
    return entry


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
