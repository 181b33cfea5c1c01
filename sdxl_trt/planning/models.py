"""What a plan knows of a model: from the package for the published ones, else from its bundle or its export."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sdxl_trt.bundle import EngineEntry, Target, read_manifest
from sdxl_trt.decode import decode, loads
from sdxl_trt.errors import BundleError, UsageError
from sdxl_trt.scratch import known_scratch
from sdxl_trt.spec import ModelSpec, TensorSpec, Work

PUBLISHED = {
    "stabilityai/stable-diffusion-xl-base-1.0": ("base", 1024),
    "stabilityai/sdxl-turbo": ("base", 512),
    "stabilityai/stable-diffusion-xl-refiner-1.0": ("refiner", 1024),
}
"""Models whose shapes the package knows: kind, and the edge in pixels that they were trained at."""


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """What TensorRT itself said of an engine that was opened on this host (`sdxl_trt.scratch`)."""

    size: int
    """Bytes that it works in, at the largest shapes that it takes: that is what the runtime reserves."""
    tensors: tuple[TensorSpec, ...]
    """Its inputs and outputs, which come beside them."""


@dataclass(frozen=True, kw_only=True)
class ModelCosts:
    """A model and the work of its graphs."""

    model: ModelSpec
    works: dict[str, Work]
    """By graph name."""
    files: int
    """Bytes that a bundle has of it beside its engines: tokenizers, token embedding tables, licence texts."""
    plans: dict[str, int] = field(default_factory=dict)
    """Bytes of its engines and the weights files they read, by graph name, where they are built."""
    scratch: dict[str, Scratch] = field(default_factory=dict)
    """By graph name, of those that were opened here."""


def scratch_of(engines: Mapping[str, EngineEntry]) -> dict[str, Scratch]:
    """What is known of built engines, by graph name."""
    return {
        name: Scratch(size=size, tensors=(*entry.inputs, *entry.outputs))
        for name, entry in engines.items()
        if (size := known_scratch(entry.file.sha256)) is not None
    }


def published(repository: str) -> ModelCosts:
    """One of `PUBLISHED`, with the works that `python -m benchmarks.costs` counted from its graphs in float16."""
    kind, edge = PUBLISHED[repository]
    path = Path(__file__).with_name("published.json")
    costs = decode(dict[str, ModelCosts], loads(path.read_bytes(), max_bytes=2**20))[kind]
    unet = dataclasses.replace(costs.model.unet, sample_size=edge // 8)
    return dataclasses.replace(
        costs, model=dataclasses.replace(costs.model, name=repository.partition("/")[2], unet=unet)
    )


def of_bundle(bundle: Path, sm: int | None, *, refiner: bool = False) -> ModelCosts:
    """A bundle's model or its refiner, with the engines that a GPU of this compute capability would run.

    Raises:
        BundleError: it is damaged, or has no such engines, or they were built before their work was counted.
        UsageError: it has no refiner.
    """
    manifest = read_manifest(bundle)
    if refiner and not manifest.refiner:
        raise UsageError(
            f"{bundle} holds no refiner",
            got=f"{manifest.model.name} alone",
            expected="a bundle that was built with --refiner",
            fix="--refiner stabilityai/stable-diffusion-xl-refiner-1.0",
        )
    target = _gpu_target(bundle, manifest.targets, sm, refiner=refiner)
    part = manifest.refiner if refiner and manifest.refiner else manifest
    engines = target.refiner if refiner else target.engines
    return ModelCosts(
        model=part.model,
        works={name: _work(bundle, name, entry) for name, entry in engines.items()},
        files=sum(blob.bytes for blob in part.files.values()),
        plans={name: sum(blob.bytes for blob in (entry.file, *entry.weights)) for name, entry in engines.items()},
        scratch=scratch_of(engines),
    )


def _gpu_target(bundle: Path, targets: tuple[Target, ...], sm: int | None, *, refiner: bool) -> Target:
    for target in targets:
        fits = not target.sms or sm is None or sm in target.sms
        if target.flavour != "onnxruntime" and fits and (target.refiner or not refiner):
            return target
    raise BundleError(
        f"{bundle} has no engines for this GPU",
        got=", ".join(target.name for target in targets) or "no target at all",
        expected="engines for SM " + (str(sm) if sm else "of any GPU"),
        fix="give the checkpoint as MODEL, or build for the GPU: sdxl-trt build MODEL --gpu NAME",
    )


def _work(bundle: Path, name: str, entry: EngineEntry) -> Work:
    if entry.work is None:
        raise BundleError(
            f"{bundle} does not say what its engines take",
            got=f"{name} without its work: built by an earlier version",
            expected="a bundle of schema 3",
            fix="run the same `sdxl-trt build` again: what is built is kept",
        )
    return entry.work


def of_export(folder: Path) -> ModelCosts:
    """The model of an export folder, in float16.

    Raises:
        ExportError: it is none, or its graphs cannot be counted.
        FlavourUnavailable: onnx is not installed.
    """
    from sdxl_trt.costs import graph_work
    from sdxl_trt.exported import read_index
    from sdxl_trt.libraries import require

    onnx, index = require("onnx", "read an export"), read_index(folder)
    graphs = {
        name: onnx.load(folder / graph.file, load_external_data=False)
        for name, graph in index.graphs["float16"].items()
    }
    return ModelCosts(
        model=index.model,
        works={name: graph_work(graph) for name, graph in graphs.items()},
        files=sum(blob.bytes for blob in index.files.values()),
    )
