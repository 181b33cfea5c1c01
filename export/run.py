"""The export stage from end to end: a checkpoint in, an export folder out."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx_ir as ir

from sdxl_trt.bundle.content import Blob
from sdxl_trt.errors import ExportError
from sdxl_trt.export.checkpoint import Checkpoint, open_checkpoint
from sdxl_trt.export.graph import attach_weights, strip
from sdxl_trt.export.safetensors import TensorRef, read_header
from sdxl_trt.export.trace import network_dtype, parameter_shapes, trace
from sdxl_trt.export.weights import convert, match_parameters, needs_conversion, write_embedding_table
from sdxl_trt.exported import (
    INDEX_NAME,
    UNFINISHED_NAME,
    ExportedGraph,
    ExportIndex,
    WeightsFile,
    read_index,
    write_index,
)
from sdxl_trt.files import atomic_write, exclusive, sha256_json
from sdxl_trt.hashes import remembered_sha256
from sdxl_trt.progress import Progress, silent
from sdxl_trt.spec import graph_spec, model_graphs
from sdxl_trt.version import __version__

PRECISIONS = ("float16", "float32")
COMPONENTS = {"step": "unet", "unet": "unet", "vae_decoder": "vae", "vae_encoder": "vae"}
"""The component a graph is traced from; a text encoder's graph has its component's name."""
TRACERS = ("torch", "diffusers", "transformers", "onnx", "onnx-ir", "onnxscript")


def export_model(
    model: Path,
    folder: Path,
    *,
    vae: Path | None = None,
    precisions: Sequence[str] = PRECISIONS,
    bare_unet: bool = False,
    progress: Progress = silent,
) -> ExportIndex:
    """Write graphs of every part of a model, without copying its weights.

    What an earlier export into the same folder made of the same checkpoint, with the same versions, is kept, even if it
    was stopped before its end.

    Args:
        model: a folder in diffusers' layout, or a .safetensors file in the original one.
        folder: where to write; described in `sdxl_trt.exported`.
        vae: another VAE to put in: its folder, a model's folder, or a .safetensors file in the original layout.
        precisions: 'float16' for GPU engines, 'float32' for the CPU; or both.
        bare_unet: also write the UNet without the step around it.
        progress: told graph by graph.

    Raises:
        CheckpointError: the model is not an SDXL in these layouts, or is damaged, or the VAE does not fit it.
        ExportError: a graph could not be traced or failed its check.
        OutputError: the folder cannot be written.
    """
    progress("reading the checkpoint", 0, 1)
    checkpoint = open_checkpoint(model, vae, progress)
    tensors = {
        name: match_parameters(name, parameter_shapes(component), component.tensors)
        for name, component in checkpoint.components.items()
    }
    progress("reading the checkpoint", 1, 1)
    names = [*model_graphs(checkpoint.model), *(["unet"] if bare_unet else [])]
    with exclusive(folder):
        work = _Work(checkpoint=checkpoint, tensors=tensors, folder=folder, kept=_earlier(folder, checkpoint))
        work.keep_finished()
        for precision in precisions:
            for name in names:
                progress(f"export {precision} {name}", 0, 1)
                work.graph(name, precision)
                progress(f"export {precision} {name}", 1, 1)
        work.write_files()
        index = work.index()
        write_index(folder, index)
        (folder / UNFINISHED_NAME).unlink(missing_ok=True)
    return index


def _earlier(folder: Path, checkpoint: Checkpoint) -> ExportIndex | None:
    """An export of the same checkpoint made with the same libraries, finished or not, if this folder holds one."""
    for name in (UNFINISHED_NAME, INDEX_NAME):
        try:
            index = read_index(folder, name)
        except ExportError:
            continue  # there is none; or one of another version of this tool: exported anew
        if index.model == checkpoint.model and index.versions == _versions():
            return index
    return None


def _versions() -> dict[str, str]:
    """Everything that decides what a graph looks like. This room's own source too: it changes between releases."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    own = sha256_json([source.read_text(encoding="utf-8") for source in sources])
    return {"sdxl-trt": f"{__version__}+{own[:12]}"} | {name: importlib.metadata.version(name) for name in TRACERS}


@dataclass(kw_only=True)
class _Work:
    """One export while it runs."""

    checkpoint: Checkpoint
    tensors: dict[str, dict[str, TensorRef]]
    """By component, then by parameter."""
    folder: Path
    kept: ExportIndex | None
    weights: dict[str, WeightsFile] = field(default_factory=dict)
    graphs: dict[str, dict[str, ExportedGraph]] = field(default_factory=dict)
    files: dict[str, Blob] = field(default_factory=dict)
    places: dict[tuple[str, str], dict[str, TensorRef]] = field(default_factory=dict)
    """Where each component's tensors of each dtype are, once that is settled."""

    def keep_finished(self) -> None:
        """What an earlier call exported stays part of the folder, other precisions than this call's too."""
        for precision, graphs in (self.kept.graphs if self.kept else {}).items():
            for name in graphs:
                if entry := self._kept(name, precision):
                    self.graphs.setdefault(precision, {})[name] = entry

    def graph(self, name: str, precision: str) -> None:
        """Export one graph, unless an earlier run left it whole."""
        graphs = self.graphs.setdefault(precision, {})
        if name not in graphs:
            graphs[name] = self._export(name, precision)
            write_index(self.folder, self.index(), UNFINISHED_NAME)

    def _kept(self, name: str, precision: str) -> ExportedGraph | None:
        entry = self.kept.graphs.get(precision, {}).get(name) if self.kept else None
        if entry is None or not self._whole(entry.file, entry.content):
            return None
        return entry if all(self._has(location) for location in entry.weights) else None

    def _has(self, location: str) -> bool:
        """Name a weights file in the index, if it is the checkpoint's, or one converted earlier and still whole."""
        if location in self.weights:
            return True
        converted = self.kept.weights.get(location) if self.kept else None
        if path := self.checkpoint.files.get(location):
            content = Blob(sha256=self.checkpoint.weights[location], bytes=path.stat().st_size)
            self.weights[location] = WeightsFile(path=str(path), content=content)
        elif converted and self._whole(converted.path, converted.content):
            self.weights[location] = converted
        return location in self.weights

    def _whole(self, file: str, content: Blob) -> bool:
        path = self.folder / file
        return path.is_file() and _blob(path) == content

    def _export(self, name: str, precision: str) -> ExportedGraph:
        checkpoint = self.checkpoint
        component = checkpoint.components[COMPONENTS.get(name, name)]
        dtype = network_dtype(component, precision)
        tensors = self._placed(component.name, dtype)
        model = trace(graph_spec(name, checkpoint.model, precision), component, precision)
        locations = attach_weights(model, tensors, dtype)
        strip(model)
        file = f"{precision}/{name}.onnx"
        proto = ir.to_proto(model)
        check(proto, file)
        with atomic_write(self.folder / file) as stream:
            stream.write(proto.SerializeToString(deterministic=True))
        return ExportedGraph(file=file, content=_blob(self.folder / file), weights=locations)

    def _placed(self, component: str, dtype: str) -> dict[str, TensorRef]:
        """Where a graph of this dtype finds its weights; names the files in the index."""
        if (component, dtype) in self.places:
            return self.places[component, dtype]
        tensors = self.tensors[component]
        if not needs_conversion(tensors, dtype):
            for location in {ref.location for ref in tensors.values()}:
                self._has(location)
        elif self._has(location := f"converted/{component}.{dtype}.safetensors"):
            header = read_header(self.folder, location)
            tensors = {parameter: header[ref.name] for parameter, ref in tensors.items()}
        else:
            tensors = convert(self.checkpoint.files, tensors, dtype, self.folder / location, location)
            self.weights[location] = WeightsFile(path=location, content=_blob(self.folder / location))
        self.places[component, dtype] = tensors
        return tensors

    def write_files(self) -> None:
        """Write tokenizers, embedding tables and licence texts."""
        for name, tokenizer in self.checkpoint.tokenizers.items():
            self._write(f"{name}/tokenizer.json", tokenizer.json)
            (table,) = [ref for parameter, ref in self.tensors[name].items() if "token_embedding" in parameter]
            path = f"{name}/token_embedding.npy"
            write_embedding_table(self.checkpoint.files, table, self.folder / path)
            self.files[path] = _blob(self.folder / path)
        for licence in self.checkpoint.licences:
            self._write(f"licence/{licence.name}", licence.read_bytes())

    def _write(self, path: str, data: bytes) -> None:
        with atomic_write(self.folder / path) as file:
            file.write(data)
        self.files[path] = _blob(self.folder / path)

    def index(self) -> ExportIndex:
        """What was exported."""
        return ExportIndex(
            tool=__version__,
            versions=_versions(),
            model=self.checkpoint.model,
            weights=dict(sorted(self.weights.items())),
            graphs=self.graphs,
            files=self.files,
        )


def check(proto: onnx.ModelProto, name: str) -> None:
    """Run onnx's checker over a graph, weights aside (it reads them only from the graph's own folder).

    Raises:
        ExportError: the graph is not valid ONNX.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    external = [t for t in bare.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in external:
        bare.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        bare.graph.initializer.remove(tensor)
    try:
        onnx.checker.check_model(bare, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{name} is not valid ONNX", got=str(error), fix="report this model") from error


def _blob(path: Path) -> Blob:
    return Blob(sha256=remembered_sha256(path), bytes=path.stat().st_size)
