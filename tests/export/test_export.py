"""The export folder as a whole: determinism, references to weights, dtypes, what is kept."""

from __future__ import annotations

import json
import shutil
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import single_files
from models import NAMES, Models

from sdxl_trt.errors import CheckpointError, OutputError
from sdxl_trt.export.folder import read_component
from sdxl_trt.export.run import export_model
from sdxl_trt.export.safetensors import component_tensors, read_header
from sdxl_trt.export.weights import convert, read_tensor
from sdxl_trt.exported import ExportIndex, read_index, weights_path
from sdxl_trt.files import exclusive, sha256_of
from sdxl_trt.spec import graph_spec


def test_same_input_same_bytes(models: Models, tmp_path: Path) -> None:
    """Another process, another hash seed, another place of the checkpoint: the same graphs."""
    copy = shutil.copytree(models.checkpoint("refiner"), tmp_path / "model")
    again = export_model(copy, tmp_path / "export", precisions=["float32"])
    assert again.graphs["float32"].items() <= read_index(models.export("refiner")).graphs["float32"].items()


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_is_a_reference(models: Models, name: str) -> None:
    """Each initializer names a checkpoint tensor and its very bytes; the graphs hold small constants alone."""
    folder = models.export(name)
    index = read_index(folder)
    tensors = [component_tensors(models.checkpoint(name), part) for part in _components(models.checkpoint(name))]
    tensors += [read_header(folder, location) for location in index.weights if location.startswith("converted/")]
    known = {(ref.location, ref.offset): ref for part in tensors for ref in part.values()}
    for precision, graphs in index.graphs.items():
        for graph in graphs.values():
            model = onnx.load(folder / graph.file, load_external_data=False)
            used = set()
            for tensor in model.graph.initializer:
                if tensor.data_location != onnx.TensorProto.EXTERNAL:
                    assert tensor.ByteSize() < 4096, (precision, graph.file, tensor.name)
                    continue
                entry = {item.key: item.value for item in tensor.external_data}
                ref = known[entry["location"], int(entry["offset"])]
                assert (tensor.name, int(entry["length"]), tuple(tensor.dims)) == (ref.name, ref.length, ref.shape)
                used.add(entry["location"])
            assert used == set(graph.weights)
            assert sha256_of(folder / graph.file) == graph.content.sha256
    for location, file in index.weights.items():
        assert sha256_of(weights_path(folder, index, location)) == file.content.sha256


def _components(checkpoint: Path) -> list[str]:
    return [path.name for path in checkpoint.iterdir() if list(path.glob("*.safetensors"))]


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_those_of_the_spec(models: Models, name: str) -> None:
    folder = models.export(name)
    index = read_index(folder)
    for precision, graphs in index.graphs.items():
        for graph_name, graph in graphs.items():
            model = onnx.load(folder / graph.file, load_external_data=False)
            spec = graph_spec(graph_name, index.model, precision)
            for values, tensors in ((model.graph.input, spec.inputs), (model.graph.output, spec.outputs)):
                assert [value.name for value in values] == [tensor.name for tensor in tensors]
                for value, tensor in zip(values, tensors, strict=True):
                    kind = value.type.tensor_type
                    shape = tuple(d.dim_param or d.dim_value for d in kind.shape.dim)
                    assert shape == tensor.shape
                    assert onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name == tensor.dtype


@pytest.mark.parametrize("name", NAMES)
def test_attention_is_one_node_per_layer(models: Models, name: str) -> None:
    import diffusers

    folder, checkpoint = models.export(name), models.checkpoint(name)
    unet = diffusers.UNet2DConditionModel.from_config(diffusers.UNet2DConditionModel.load_config(checkpoint / "unet"))
    for graphs in read_index(folder).graphs.values():
        nodes = onnx.load(folder / graphs["step"].file, load_external_data=False).graph.node
        count = Counter(node.op_type for node in nodes)
        assert count["Attention"] == len(unet.attn_processors)
        assert count["Softmax"] == 0


def test_what_the_refiner_and_inpainting_need_is_in_the_graphs(models: Models) -> None:
    refiner, inpaint = (read_index(models.export(name)).model for name in ("refiner", "inpaint"))
    assert (refiner.kind, refiner.unet.time_ids, len(refiner.text_encoders)) == ("refiner", 5, 1)
    assert not refiner.zero_negative
    assert (inpaint.unet.channels, inpaint.unet.guidance_embedding) == (9, 40)
    inputs = {tensor.name: tensor.shape for tensor in graph_spec("step", inpaint, "float32").inputs}
    assert inputs["extra"] == ("slots", 5, "height", "width")
    assert inputs["guidance_embedding"] == ("rows", 40)


def test_wider_weights_are_converted_once(models: Models, tmp_path: Path) -> None:
    """float32 shards for a float16 graph: one file, numbers rounded to nearest, readable as safetensors."""
    component = read_component(models.checkpoint("v"), "text_encoder")
    places = convert(component.files, component.tensors, "float16", tmp_path / "te.safetensors", "te.safetensors")
    assert read_header(tmp_path, "te.safetensors") == places
    for name, place in places.items():
        converted = read_tensor({"te.safetensors": tmp_path / "te.safetensors"}, place)
        original = read_tensor(component.files, component.tensors[name])
        assert np.array_equal(converted, original.astype(np.float16))


def test_conversion_of_every_bfloat16(tmp_path: Path) -> None:
    """All values that fit, subnormal ones of float16 too, rounded to nearest, ties to even, as numpy rounds float32."""
    bits = np.arange(2**16, dtype=np.uint32)
    values = (bits << 16).astype(np.uint32).view(np.float32)
    fits = np.isfinite(values) & (np.abs(values) < 65520)
    (converted,) = converted_to_float16(tmp_path, bits[fits].astype(np.uint16).tobytes(), [int(fits.sum())])
    expected = values[fits].astype(np.float16)
    assert np.array_equal(converted.view(np.uint16), expected.view(np.uint16))
    assert ((np.abs(expected) > 0) & (np.abs(expected) < 2**-14)).sum() > 1000


@pytest.mark.parametrize(("value", "shown"), [(2.0**17, "131072"), (np.inf, "inf"), (np.nan, "nan")])
def test_a_value_beyond_float16_is_refused(tmp_path: Path, value: float, shown: str) -> None:
    data = np.array([0, value], np.float32).view(np.uint16)[1::2].tobytes()
    with pytest.raises(CheckpointError, match=f"large does not fit float16\n.*{shown}[^0-9]"):
        converted_to_float16(tmp_path, data, [2])
    assert {path.name for path in tmp_path.iterdir()} == {"x.safetensors"}


def converted_to_float16(folder: Path, data: bytes, shape: list[int]) -> list[np.ndarray]:
    """A bfloat16 tensor, called large, through a file and back."""
    header = json.dumps({"large": {"dtype": "BF16", "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    (folder / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
    files = {name: folder / name for name in ("x.safetensors", "y.safetensors")}
    tensors = read_header(folder, "x.safetensors")
    places = convert(files, tensors, "float16", files["y.safetensors"], "y.safetensors")
    return [read_tensor(files, ref) for ref in places.values()]


def test_converted_weights_are_kept(tmp_path: Path) -> None:
    """While they are whole: a second export of a graph reads what the first converted."""
    networks = single_files.make("refiner", "bfloat16")
    model = single_files.write_file(tmp_path / "tiny.safetensors", single_files.tensors_of(networks))
    folder = tmp_path / "export"

    def export(kept: ExportIndex | None = None) -> ExportIndex:
        return single_files.export_only(model, folder, "text_encoder_2", kept=kept, precision="float16")

    first = export()
    ((location, weights),) = first.weights.items()
    assert location == weights.path == "converted/text_encoder_2.float16.safetensors"
    graph, converted = folder / first.graphs["float16"]["text_encoder_2"].file, folder / location
    written, content = converted.stat().st_mtime_ns, graph.read_bytes()
    graph.unlink()
    assert export(first) == first
    assert graph.read_bytes() == content
    assert converted.stat().st_mtime_ns == written
    converted.write_bytes(converted.read_bytes()[:-1] + b"x")
    assert export(first) == first
    assert sha256_of(converted) == weights.content.sha256


def test_one_writer_at_a_time(models: Models, tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(OutputError, match="another process is writing"):
        export_model(models.checkpoint("demo"), tmp_path)
