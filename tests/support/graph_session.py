"""Run an exported graph in onnxruntime straight from the export folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sdxl_trt.exported import ExportIndex, weights_path


class GraphSession:
    """A graph with its weights mapped from where the index says they are."""

    def __init__(self, folder: Path, index: ExportIndex, name: str, precision: str = "float32") -> None:
        import onnx
        import onnxruntime

        path = folder / index.graphs[precision][name].file
        options = onnxruntime.SessionOptions()
        names, values = [], []
        for tensor in onnx.load(path, load_external_data=False).graph.initializer:
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                continue
            entry = {item.key: item.value for item in tensor.external_data}
            array = np.memmap(
                weights_path(folder, index, entry["location"]),
                dtype=onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type),
                mode="r",
                offset=int(entry["offset"]),
                shape=tuple(tensor.dims),
            )
            names.append(tensor.name)
            if array.dtype.name == "bfloat16":  # which numpy itself does not know
                array = array.view(np.uint16)
            make = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type
            values.append(make(np.asarray(array), tensor.data_type))
        options.add_external_initializers(names, values)
        self.session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])

    def run(self, feed: dict[str, Any]) -> list[np.ndarray]:
        """All outputs, in order."""
        return self.session.run(None, {name: np.asarray(value) for name, value in feed.items()})
