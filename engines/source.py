"""An export folder as the source of engines: every file is checked against export.json before it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.bundle import Blob
from sdxl_trt.errors import ExportError
from sdxl_trt.exported import ExportedGraph, read_index, weights_path
from sdxl_trt.hashes import remembered_sha256
from sdxl_trt.libraries import require
from sdxl_trt.progress import Progress
from sdxl_trt.spec import GraphSpec, TensorSpec

Place = tuple[str, int, int]
"""Where an initializer's bytes are: location, offset and length in bytes."""


def blob_of(path: Path) -> Blob:
    """The hash and size of a file. A large one that nobody touched since it was hashed last is not read again: what
    `Source` guards against is a checkpoint that was changed or replaced after its export.
    """
    return Blob(sha256=remembered_sha256(path), bytes=path.stat().st_size)


class Source:
    """An export folder.

    Raises:
        ExportError: it is not one; and from every method, that a file is missing or is not what it was exported as.
        FlavourUnavailable: onnx is not installed.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.folder = folder
        self.index = read_index(folder)
        self._onnx = require("onnx", "read an export")
        self._progress = progress
        self._maps: dict[str, NDArray[np.uint8]] = {}

    def entry(self, name: str, precision: str) -> ExportedGraph:
        """What the index says of a graph."""
        graphs = self.index.graphs.get(precision, {})
        if name not in graphs:
            raise ExportError(
                f"{self.folder} has no {precision} graph of {name}",
                got=", ".join(f"{p}: {' '.join(g)}" for p, g in self.index.graphs.items()) or "no graph at all",
                expected=f"{precision}/{name}.onnx",
                fix=f"sdxl-trt export MODEL -o {self.folder}",
            )
        return graphs[name]

    def weights_bytes(self, name: str, precision: str) -> int:
        """Bytes of the weights files that a graph reads."""
        return sum(self.index.weights[location].content.bytes for location in self.entry(name, precision).weights)

    def graph(self, spec: GraphSpec, precision: str) -> Any:
        """The onnx.ModelProto of a graph, which has the tensors that its spec says, without its weights."""
        entry = self.entry(spec.name, precision)
        path = self.checked(self.folder / entry.file, entry.content)
        model = self._onnx.load_model_from_string(path.read_bytes())
        for kind, tensors, values in (
            ("inputs", spec.inputs, model.graph.input),
            ("outputs", spec.outputs, model.graph.output),
        ):
            expected, got = [_shown(t) for t in tensors], [self._shown_value(v) for v in values]
            if expected != got:
                raise ExportError(
                    f"the {kind} of {path} are not those of this version's {spec.name}",
                    got="; ".join(got),
                    expected="; ".join(expected),
                    fix=f"export again: sdxl-trt export MODEL -o {self.folder}",
                )
        return model

    def _shown_value(self, value: Any) -> str:
        kind = value.type.tensor_type
        dtype = self._onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        return f"{value.name} {dtype} {[d.dim_value if d.HasField('dim_value') else '?' for d in kind.shape.dim]}"

    def external(self, model: Any) -> Iterator[tuple[Any, Place]]:
        """The initializers (onnx.TensorProto) whose bytes are in weights files, and where those are."""
        for tensor in model.graph.initializer:
            if tensor.data_location == self._onnx.TensorProto.EXTERNAL:
                data = {entry.key: entry.value for entry in tensor.external_data}
                yield tensor, (data["location"], int(data["offset"]), int(data["length"]))

    def weights(self, location: str) -> NDArray[np.uint8]:
        """A weights file, mapped into memory for as long as this object lives."""
        if location not in self._maps:
            path = self.checked(weights_path(self.folder, self.index, location), self.index.weights[location].content)
            self._maps[location] = np.memmap(path, mode="r")
        return self._maps[location]

    def checked(self, path: Path, content: Blob, read: Callable[[Path], Blob] = blob_of) -> Path:
        """The path of a file of the export, whose content was found to be what the index says.

        Args:
            path: the file.
            content: what the index says of it.
            read: reads it from end to end (hashing it, or copying it into a bundle), and says what it found.
        """
        stage = f"check {path.parent.name}/{path.name}"
        self._progress(stage, 0, 1)
        try:
            found = read(path)
        except OSError as error:
            raise self._changed(path, error.strerror or str(error), content) from error
        if found != content:
            raise self._changed(path, f"{found.bytes} bytes, SHA-256 {found.sha256}", content)
        self._progress(stage, 1, 1)
        return path

    def _changed(self, path: Path, got: str, content: Blob) -> ExportError:
        return ExportError(
            f"{path} is not what it was when it was exported",
            got=got,
            expected=f"{content.bytes} bytes, SHA-256 {content.sha256}",
            fix=f"export again: sdxl-trt export MODEL -o {self.folder}",
        )


def _shown(tensor: TensorSpec) -> str:
    return f"{tensor.name} {tensor.dtype} {[size if isinstance(size, int) else '?' for size in tensor.shape]}"
