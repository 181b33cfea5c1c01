"""The build stage from end to end: an export folder in, a bundle out.

A build may be killed at any moment. Every file appears whole or not at all; each finished engine is recorded; and
bundle.json is written last. The next build takes up what is there and removes what nothing refers to.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sdxl_trt.bundle import (
    Blob,
    BlobStore,
    EngineEntry,
    Manifest,
    Refiner,
    Target,
    conflict,
    siblings,
    write_manifest,
)
from sdxl_trt.costs import graph_work
from sdxl_trt.engines.acceptance import accept_on_cpu
from sdxl_trt.engines.attention import fuse_attention
from sdxl_trt.engines.compiler import Task, compile_apart
from sdxl_trt.engines.flavours import check_buildable
from sdxl_trt.engines.hooks import STEPS, Report
from sdxl_trt.engines.keys import engine_key
from sdxl_trt.engines.naming import Naming
from sdxl_trt.engines.ort import ease_group_norms, store_graph
from sdxl_trt.engines.pending import Existing
from sdxl_trt.engines.source import Source
from sdxl_trt.engines.targets import TargetRequest, check_vae
from sdxl_trt.engines.twins import same_network
from sdxl_trt.progress import Progress, silent
from sdxl_trt.spec import GraphSpec, Profile, Work, graph_spec, model_graphs
from sdxl_trt.version import __version__


def build(
    export: Path,
    bundle: Path,
    requests: Sequence[TargetRequest],
    *,
    profile: Profile,
    refiner: Path | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Build every engine that the targets need and the bundle lacks; returns what bundle.json says then.

    Targets that the bundle has already are kept, those of the same names replaced. When nothing is new, bundle.json
    stays the same byte for byte.

    A refiner's engines are beside the model's in every target; what both models have alike is built and stored once.

    Args:
        export: folder described in `sdxl_trt.exported`, with the precisions of the targets' flavours.
        bundle: folder to write; need not exist.
        requests: from `resolve_targets`.
        profile: shapes the engines are to take.
        refiner: the export of a refiner, to be in the same bundle.
        progress: told of every check, compilation and acceptance.

    Raises:
        UsageError: the refiner is none, or not one of this model; or its VAE cannot be built for a target.
        FlavourUnavailable: a library or GPU that a target needs is not here; nothing was written.
        ExportError: the export is incomplete, or its files or the checkpoint's changed.
        BuildError: an engine could not be compiled or was not accepted.
        BundleError: the folder holds another model's bundle, or a damaged target that is not rebuilt.
        OutputError: the folder cannot be written, or another build is writing it.
    """
    source = Source(export, progress)
    second = Source(refiner, progress) if refiner else None
    if second and (error := conflict(source.index.model, second.index.model)):
        raise error
    check_vae(requests, source.index.model)
    versions = {request.name: check_buildable(request.flavour, request.sms) for request in requests}
    store = BlobStore(bundle)
    with store.lock():
        existing = Existing(bundle, source.index.model, second.index.model if second else None)
        kept = existing.kept(versions)
        others = siblings(bundle)
        work = _Work(store, others, source, existing, profile, progress)
        refining = _Work(store, others, second, existing, profile, progress, "refiner ", work) if second else None
        files, more = work.files(), refining.refiner() if refining else None
        built = [_target(request, versions[request.name], work, refining) for request in requests]
        if more is None and existing.manifest and any(target.refiner for target in kept):
            more = existing.manifest.refiner
        naming = Naming(store, existing.manifest.blobs().values() if existing.manifest else ())
        targets = [naming.target(target) for target in (*kept, *built)]
        manifest = _manifest(source, existing.manifest, naming.files(files), targets, naming.refiner(more))
        if manifest != existing.manifest:
            write_manifest(bundle, manifest)
        store.keep_only(manifest.blobs().values())
        existing.clear()
    return manifest


def _target(request: TargetRequest, version: str, work: _Work, refining: _Work | None) -> Target:
    """All engines of a target."""
    return Target(
        name=request.name,
        flavour=request.flavour.name,
        flavour_version=version,
        sms=request.sms,
        processor=request.processor,
        precision=request.flavour.precision,
        profile=work.profile,
        accepted=request.flavour.runs_here,  # accepted below; a GPU's engines at their first start
        engines=work.engines(request, version),
        refiner=refining.engines(request, version) if refining else {},
    )


@dataclass(frozen=True)
class _Work:
    """One build of a model while it runs."""

    store: BlobStore
    others: Sequence[BlobStore]
    """Bundles beside this one, whose blobs are linked rather than written again."""
    source: Source
    existing: Existing
    profile: Profile
    progress: Progress
    label: str = ""
    """Of the model, in what is reported."""
    first: _Work | None = None
    """That of a model whose engines serve this one too where both have the same network."""
    counted: dict[tuple[str, str], Work] = field(default_factory=dict)
    """By graph name and precision."""

    def engines(self, request: TargetRequest, version: str) -> dict[str, EngineEntry]:
        """All engines of the model for a target, by graph name."""
        model = self.source.index.model
        specs = [graph_spec(name, model, request.flavour.precision) for name in model_graphs(model)]
        return {spec.name: self._engine(request, version, spec) for spec in specs}

    def files(self) -> dict[str, Blob]:
        """Everything else that a bundle has of the model, stored."""
        return {name: self._stored(blob, self.source.folder / name) for name, blob in self.source.index.files.items()}

    def refiner(self) -> Refiner:
        """The model as the bundle's refiner."""
        return Refiner(model=self.source.index.model, files=self.files())

    def has(self, other: Source, spec: GraphSpec, precision: str) -> bool:
        """The model has the same network as another for a graph."""
        model = self.source.index.model
        alike = spec.name in model_graphs(model) and graph_spec(spec.name, model, precision) == spec
        return alike and same_network(self.source, other, spec, precision)

    def _engine(self, request: TargetRequest, version: str, spec: GraphSpec) -> EngineEntry:
        """One engine: as it was found, or built now."""
        key = self._key(request, version, spec)
        found = self.existing.engine(key)
        if found:
            self.progress(f"found {request.name} {self.label}{spec.name}", 1, 1)
            return found if found.work else dataclasses.replace(found, work=self._graph_work(request, spec))
        report = functools.partial(self.progress, f"build {request.name} {self.label}{spec.name}")
        report(0, STEPS)
        if request.flavour.module == "onnxruntime":
            file, weights = self._graph(request, spec, report)
        else:
            file, weights = self._plan(request, spec, report), ()
        work = self._graph_work(request, spec)
        entry = EngineEntry(
            key=key,
            file=file,
            weights=weights,
            inputs=spec.inputs,
            outputs=spec.outputs,
            work=work,
            streams=request.streams(spec.name),
        )
        self.existing.record(entry)
        report(STEPS, STEPS)
        return entry

    def _key(self, request: TargetRequest, version: str, spec: GraphSpec) -> str:
        if self.first and self.first.has(self.source, spec, request.flavour.precision):
            return self.first._key(request, version, spec)
        entry = self.source.entry(spec.name, request.flavour.precision)
        return engine_key(
            graph=entry.content.sha256,
            weights={location: self.source.index.weights[location].content.sha256 for location in entry.weights},
            flavour=request.flavour.name,
            flavour_version=version,
            flags=request.flags(spec.name),
            sms=request.sms,
            processor=request.processor,
            precision=request.flavour.precision,
            ranges={axis: self.profile.axis(axis, spec.name) for axis in spec.axes},
        )

    def _plan(self, request: TargetRequest, spec: GraphSpec, report: Report) -> Blob:
        """A plan, in chunks as the library writes it: most of them are another plan's too."""
        with self.store.chunk_writer(self.others) as writer:
            task = Task(export=self.source.folder, request=request, spec=spec, profile=self.profile)
            compile_apart(task, writer, report)
        return writer.blob()

    def _graph(self, request: TargetRequest, spec: GraphSpec, report: Report) -> tuple[Blob, tuple[Blob, ...]]:
        flavour = request.flavour
        fused = [] if flavour.runs_here else [fuse_attention]
        file, weights = store_graph(self.source, spec, flavour.precision, self.store, (ease_group_norms, *fused))
        if flavour.runs_here:
            accept_on_cpu(self.store.path(file), spec, self.profile, report)
        return file, (weights,)

    def _graph_work(self, request: TargetRequest, spec: GraphSpec) -> Work:
        """What a graph computes: counted once for all targets that have it."""
        key = spec.name, request.flavour.precision
        if key not in self.counted:
            self.counted[key] = graph_work(self.source.graph(spec, request.flavour.precision))
        return self.counted[key]

    def _stored(self, blob: Blob, path: Path) -> Blob:
        """Make sure that the bundle has a file of the export, which must be what it was exported as."""
        if not self.existing.sound(blob) and not self.store.adopt(blob, self.others):
            self.source.checked(path, blob, self.store.put_file)
        return blob


def _manifest(
    source: Source, old: Manifest | None, files: dict[str, Blob], targets: Sequence[Target], refiner: Refiner | None
) -> Manifest:
    """What bundle.json is to say; the old manifest itself where nothing but the time would differ."""
    manifest = Manifest(
        tool=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=source.index.model,
        files=files,
        targets=tuple(sorted(targets, key=lambda target: target.name)),
        refiner=refiner,
    )
    same = old is not None and dataclasses.replace(manifest, created=old.created) == old
    return old if old and same else manifest
