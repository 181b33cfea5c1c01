"""Attention for onnxruntime's CUDA provider: the very graphs it gets, on the processor."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from closeness import relative_error
from models import Models
from onnx import TensorProto, helper, parser

from sdxl_trt.bundle import BlobStore, Manifest, read_manifest
from sdxl_trt.engines.acceptance import random_inputs, shapes_to_try
from sdxl_trt.engines.attention import fuse_attention
from sdxl_trt.engines.build import build
from sdxl_trt.engines.targets import resolve_targets
from sdxl_trt.errors import BuildError
from sdxl_trt.spec import Profile, graph_spec

PROFILE = Profile.make(smallest=(64, 64), best=(128, 128), largest=(256, 256), batch=4)
ATTENTIONS = {"step": 8, "text_encoder": 3, "text_encoder_2": 3, "vae_decoder": 1, "vae_encoder": 1}
"""Of the demo model."""
BOUND = 2e-3
"""Of float16 graphs against float32 ones: largest difference over the largest value."""


@pytest.mark.parametrize("scale", ["", ", scale = 0.7"])
@pytest.mark.parametrize(("causal", "queries", "keys"), [(0, 5, 5), (0, 6, 3), (1, 5, 5)])
def test_the_same_numbers(causal: int, scale: str, queries: int, keys: int) -> None:
    """Against torch's, in float32."""
    import torch

    rng = np.random.default_rng(0)
    shapes = {"q": (2, 3, queries, 4), "k": (2, 3, keys, 4), "v": (2, 3, keys, 4)}
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    model = small_model(f"y = Attention <is_causal = {causal}{scale}> (qi, ki, vi)", heads=3)
    fuse_attention(onnx, model)
    onnx.checker.check_model(model)
    assert Counter(node.op_type for node in model.graph.node)["MultiHeadAttention"] == 1
    got = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0]
    tensors = [torch.from_numpy(feeds[name]) for name in "qkv"]
    wanted = torch.nn.functional.scaled_dot_product_attention(
        *tensors, is_causal=bool(causal), scale=0.7 if scale else None
    )
    assert relative_error(got, wanted.numpy(), 1e-6, "torch") <= 1e-6


@pytest.mark.parametrize(
    ("attention", "heads", "got"),
    [
        ("y = Attention (qi, ki, vi, mask)", 3, "4 inputs, 3 heads, softcap 0"),
        ("y = Attention (qi, ki, vi)", None, "3 inputs, an unknown number of heads, softcap 0"),
        ("y = Attention <softcap = 0.5> (qi, ki, vi)", 3, "3 inputs, 3 heads, softcap 0.5"),
    ],
)
def test_what_cannot_be_fused_is_refused(attention: str, heads: int | None, got: str) -> None:
    with pytest.raises(BuildError, match="cannot be fused") as caught:
        fuse_attention(onnx, small_model(attention, heads))
    assert caught.value.got == got


def small_model(attention: str, heads: int | None) -> onnx.ModelProto:
    """One Attention of qi, ki and vi [N, heads, S, D], which are copies of the inputs."""
    shape = ["n", heads or "heads", None, 4]
    nodes = [parser.parse_node(f"{name}i = Identity ({name})") for name in "qkv"]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("q", "k", "v", "y")]
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, [None, None])
    graph = helper.make_graph([*nodes, parser.parse_node(attention)], "attention", [*values[:3], mask], values[3:])
    if "mask" not in attention:
        del graph.input[3]
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


@pytest.fixture(scope="module")
def bundle(models: Models, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("cuda")
    return folder, build(models.export("demo"), folder, resolve_targets(["h200"], "onnxruntime-cuda"), profile=PROFILE)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_the_graphs_for_cuda_on_the_processor(
    name: str, bundle: tuple[Path, Manifest], demo_bundle: Path, tmp_path: Path
) -> None:
    """Float16 beside the float32 graphs, which are compared with diffusers'. (The processor computes in float32.)"""
    folder, manifest = bundle
    spec = graph_spec(name, manifest.model, "float16")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    path = BlobStore(folder).path(manifest.targets[0].engines[name].file)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kinds = Counter(
        node.op_type for node in onnx.load(tmp_path / "optimised.onnx", load_external_data=False).graph.node
    )
    assert (kinds["MultiHeadAttention"], kinds["Attention"], kinds["Softmax"]) == (ATTENTIONS[name], 0, 0)
    assert kinds["Transpose"] <= 8  # NCHW to rows and back; those around attention undo one another
    entry = read_manifest(demo_bundle).targets[0].engines[name]
    reference = onnxruntime.InferenceSession(BlobStore(demo_bundle).path(entry.file))
    widths = {tensor.name: tensor.dtype for tensor in entry.inputs}
    rng = np.random.default_rng(0)
    for axes in shapes_to_try(spec, PROFILE):
        feeds = random_inputs(spec, axes, rng)
        wide = {each: array.astype(widths[each]) for each, array in feeds.items()}
        for output, got, wanted in zip(spec.outputs, session.run(None, feeds), reference.run(None, wide), strict=True):
            what = f"{name}.{output.name} at {axes}"
            assert relative_error(got, wanted, BOUND, what) <= BOUND
