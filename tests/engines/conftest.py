"""A very small model in the form that `export` writes: real graphs of every kind, weights in safetensors files."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, parser
from safetensors.numpy import save_file

from sdxl_trt.bundle import Blob
from sdxl_trt.exported import ExportedGraph, ExportIndex, WeightsFile, write_index
from sdxl_trt.files import sha256_of
from sdxl_trt.spec import GraphSpec, ModelSpec, Profile, TextEncoderSpec, UNetSpec, VaeSpec, graph_spec, model_graphs

WIDTH, TOKENS, POOLED = 16, 8, 16

WEIGHTS: dict[str, dict[str, tuple[int, ...]]] = {
    "text_encoder": {"layer": (WIDTH, WIDTH), "projection": (WIDTH, POOLED)},
    "text_encoder_2": {"layer": (WIDTH, WIDTH), "projection": (WIDTH, POOLED)},
    "unet": {"conv": (4, 4, 3, 3), "pooled_in": (POOLED, 4), "text_in": (2 * WIDTH, 4), "ids_in": (6, 4)},
    "vae": {"decode": (3, 4, 3, 3), "encode": (8, 3, 8, 8)},
}

TEXT_ENCODER = """
    deep = MatMul(embeddings, layer)
    layers = Constant <value_ints = [0]> ()
    first = Unsqueeze(embeddings, layers)
    second = Unsqueeze(deep, layers)
    hidden = Concat <axis = 0> (first, second)
    wide = Cast <to = 7> (pool_index)
    last = Constant <value_ints = [-1]> ()
    places = Unsqueeze(wide, last)
    picked = GatherND <batch_dims = 1> (deep, places)
    pooled = MatMul(picked, projection)
"""
STEP = """
    zero = Constant <value_int = 0> ()
    sample = Gather <axis = 1> (state, zero)
    gathered = Gather <axis = 0> (sample, row_slot)
    narrow = Cast <to = DTYPE> (gathered)
    seen = Conv <pads = [1, 1, 1, 1]> (narrow, conv)
    one = Constant <value_ints = [1]> ()
    mean = ReduceMean <keepdims = 0> (text, one)
    from_text = MatMul(mean, text_in)
    from_pooled = MatMul(pooled, pooled_in)
    ids = Cast <to = DTYPE> (time_ids)
    from_ids = MatMul(ids, ids_in)
    two_sums = Add(from_text, from_pooled)
    three_sums = Add(two_sums, from_ids)
    pixels = Constant <value_ints = [2, 3]> ()
    everywhere = Unsqueeze(three_sums, pixels)
    rows_out = Add(seen, everywhere)
    eps = Cast <to = 1> (rows_out)
    cond = Gather <axis = 0> (eps, cond_row)
    uncond = Gather <axis = 0> (eps, uncond_row)
    two = Constant <value_ints = [2]> ()
    scale = Slice(column, one, two, one)
    guidance = Unsqueeze(scale, pixels)
    difference = Sub(cond, uncond)
    push = Mul(guidance, difference)
    guided = Add(uncond, push)
    painted = Mul(mask, guided)
    kept = Add(image, initial_noise)
    x0 = Add(painted, kept)
    noisy = Add(x0, noise)
    change = Unsqueeze(noisy, one)
    new_state = Add(state, change)
"""
VAE_DECODER = """
    small = Conv <pads = [1, 1, 1, 1]> (latents, decode)
    scales = Constant <value_floats = [1.0, 1.0, 8.0, 8.0]> ()
    image = Resize <mode = "nearest"> (small, , scales)
"""
VAE_ENCODER = "moments = Conv <strides = [8, 8]> (image, encode)"

REFINER_UNET: dict[str, tuple[int, ...]] = {**WEIGHTS["unet"], "text_in": (WIDTH, 4), "ids_in": (5, 4)}

BODIES = {
    "text_encoder": TEXT_ENCODER,
    "text_encoder_2": TEXT_ENCODER,
    "step": STEP,
    "vae_decoder": VAE_DECODER,
    "vae_encoder": VAE_ENCODER,
}
COMPONENTS = {"step": "unet", "vae_decoder": "vae", "vae_encoder": "vae"}


def small_model(content: str = "0" * 64, *, refiner: bool = False) -> ModelSpec:
    encoders = tuple(
        TextEncoderSpec(
            name=name,
            width=WIDTH,
            hidden=2,
            pooled=POOLED,
            tokens=TOKENS,
            vocabulary=9,
            bos=7,
            eos=8,
            pad=8,
            pool_at="eos",
        )
        for name in ("text_encoder", "text_encoder_2")[refiner:]
    )
    return ModelSpec(
        name="small-refiner" if refiner else "small",
        content=content,
        kind="refiner" if refiner else "base",
        text_encoders=encoders,
        unet=UNetSpec(
            channels=4,
            text=WIDTH * len(encoders),
            pooled=POOLED,
            time_ids=6 - refiner,
            guidance_embedding=0,
            sample_size=8,
        ),
        vae=VaeSpec(scaling_factor=0.5, force_upcast=True),
        zero_negative=True,
        scheduler={"_class_name": "EulerDiscreteScheduler"},
    )


def value_infos(tensors: Any) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(t.name, helper.np_dtype_to_tensor_dtype(np.dtype(t.dtype)), t.shape)
        for t in tensors
    ]


def external(name: str, shape: tuple[int, ...], location: str, offset: int, length: int) -> TensorProto:
    """A float16 initializer that is not in the graph."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT16, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": str(offset), "length": str(length)}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def offsets(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and length of each tensor in a safetensors file."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    return {
        name: (8 + size + at["data_offsets"][0], at["data_offsets"][1] - at["data_offsets"][0])
        for name, at in header.items()
    }


def make_graph(
    spec: GraphSpec, precision: str, path: Path, body: str, shapes: dict[str, tuple[int, ...]]
) -> onnx.ModelProto:
    component = COMPONENTS.get(spec.name, spec.name)
    location = f"{component}/{path.name}"
    network = "float32" if component == "vae" else precision
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(network))
    lines = [line for line in body.replace("DTYPE", str(dtype)).splitlines() if line.strip()]
    nodes = [parser.parse_node(line) for line in lines]
    used = {name for node in nodes for name in node.input}
    initializers = []
    for name, (offset, length) in offsets(path).items():
        if name in used:
            stored = name if network == "float16" else f"{name}.stored"
            if stored != name:
                nodes.insert(0, helper.make_node("Cast", [stored], [name], to=dtype))
            initializers.append(external(stored, shapes[name], location, offset, length))
    graph = helper.make_graph(nodes, spec.name, value_infos(spec.inputs), value_infos(spec.outputs), initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


def blob(path: Path) -> Blob:
    return Blob(sha256=sha256_of(path), bytes=path.stat().st_size)


def write_export(
    folder: Path,
    *,
    seed: int = 0,
    bodies: dict[str, str] | None = None,
    precisions: tuple[str, ...] = ("float16", "float32"),
    refiner: bool = False,
    file: str = "model.safetensors",
) -> Path:
    """Write an export and the checkpoint it refers to; returns the export's folder.

    A refiner shares the second text encoder and the VAE with the model of its seed.
    """
    checkpoint, export = folder / "checkpoint", folder / "export"
    weights = {}
    all_shapes = {**WEIGHTS, "unet": REFINER_UNET} if refiner else WEIGHTS
    for number, (component, shapes) in enumerate(all_shapes.items()):
        rng = np.random.default_rng((seed, number))
        path = checkpoint / component / file
        path.parent.mkdir(parents=True)
        save_file({k: (rng.standard_normal(v) / 4).astype(np.float16) for k, v in shapes.items()}, path)
        weights[f"{component}/{file}"] = WeightsFile(path=str(path), content=blob(path))
    model = small_model(content=f"{2 * seed + refiner:064x}", refiner=refiner)
    graphs: dict[str, dict[str, ExportedGraph]] = {}
    for precision in precisions:
        (export / precision).mkdir(parents=True)
        for name in model_graphs(model):
            graph_file, component = f"{precision}/{name}.onnx", COMPONENTS.get(name, name)
            body = (bodies or {}).get(name, BODIES[name])
            path, spec = checkpoint / component / file, graph_spec(name, model, precision)
            onnx.save_model(make_graph(spec, precision, path, body, all_shapes[component]), export / graph_file)
            graphs.setdefault(precision, {})[name] = ExportedGraph(
                file=graph_file, content=blob(export / graph_file), weights=(f"{component}/{file}",)
            )
    files = {}
    parts = [
        f"{each.name}/{file}" for each in model.text_encoders for file in ("tokenizer.json", "token_embedding.npy")
    ]
    for name in (*parts, "licence/LICENSE.md"):
        (export / name).parent.mkdir(exist_ok=True)
        (export / name).write_bytes(f"{name} {seed}".encode())
        files[name] = blob(export / name)
    index = ExportIndex(tool="0", versions={}, model=model, weights=weights, graphs=graphs, files=files)
    write_index(export, index)
    return export


MakeExport = Callable[..., Path]


@pytest.fixture(scope="session")
def make_export() -> MakeExport:
    """`write_export`: an export of the small model in a new folder, with other weights or node texts where asked."""
    return write_export


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export folder of the small model, both precisions; not to be changed."""
    return write_export(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def profile() -> Profile:
    """Shapes for the small model."""
    return Profile.make(smallest=(64, 64), best=(64, 64), largest=(128, 128), batch=2, tokens=TOKENS, chunks=2)
