"""Counts of graphs: against torch's own counter, by hand, and polynomials at shapes they were not made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from models import Models
from onnx import parser

from sdxl_trt.costs import Counts, count, graph_work
from sdxl_trt.errors import ExportError
from sdxl_trt.exported import read_index
from sdxl_trt.spec import graph_spec

AXES = {"rows": 3, "slots": 2, "height": 12, "width": 20, "tokens": 77}
GRAPHS = ("text_encoder", "text_encoder_2", "step", "vae_decoder", "vae_encoder")


@pytest.fixture(scope="module")
def export(models: Models) -> Path:
    return models.export("demo")


def graph(export: Path, name: str, precision: str = "float32") -> Any:
    return onnx.load(export / read_index(export).graphs[precision][name].file, load_external_data=False)


def of_torch(export: Path, model: Path, name: str, axes: dict[str, int]) -> tuple[int, int]:
    """Operations and parameters by torch.utils.flop_counter, of the modules that are exported, on no device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from sdxl_trt.export.checkpoint import open_checkpoint
    from sdxl_trt.export.trace import _module

    checkpoint = open_checkpoint(model, None)
    component = {"step": "unet", "vae_decoder": "vae", "vae_encoder": "vae"}.get(name, name)
    torch.set_default_device("meta")
    try:
        module, _ = _module(name, checkpoint.components[component], "float32")
        sizes = axes | {"8*height": 8 * axes["height"], "8*width": 8 * axes["width"]}
        inputs = [
            torch.zeros([sizes.get(str(d), d) for d in tensor.shape], dtype=getattr(torch, tensor.dtype))
            for tensor in graph_spec(name, checkpoint.model, "float32").inputs
        ]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(*inputs)
    finally:
        torch.set_default_device(None)
    parameters = dict(module.named_parameters())
    parts = {"vae_decoder": ("decoder", "post_quant"), "vae_encoder": ("encoder", "quant_conv")}.get(name, ("",))
    own = [p for key, p in parameters.items() if key.split("model.", 1)[1].startswith(parts)]
    unused = [p for key, p in parameters.items() if "token_embedding" in key]
    return counter.get_total_flops(), sum(p.numel() for p in own) - sum(p.numel() for p in unused)


@pytest.mark.parametrize("name", GRAPHS)
def test_counts_are_those_of_torch(export: Path, demo_model: Path, name: str) -> None:
    for axes in (AXES, AXES | {"height": 17, "width": 23, "tokens": 11}):
        operations, parameters = of_torch(export, demo_model, name, axes)
        counts = count(graph(export, name), axes)
        print(f"{name} at {axes}: {counts.operations} operations, torch {operations}")
        assert (counts.operations, counts.parameters) == (operations, parameters)


@pytest.mark.parametrize("name", GRAPHS)
def test_polynomials_are_exact_at_other_shapes(export: Path, name: str) -> None:
    model = graph(export, name)
    work = graph_work(model)
    for rows, slots, height, width, tokens in ((1, 1, 8, 8, 77), (5, 3, 4, 96, 154), (8, 4, 44, 20, 308)):
        axes = {"rows": rows, "slots": slots, "height": height, "width": width, "tokens": tokens}
        counts = count(model, axes)
        assert work.operations(axes) == counts.operations
        assert work.bytes(axes) == counts.weights + counts.traffic
        assert work.activations(axes) == max(counts.live)


def test_odd_latents_take_little_more_than_the_polynomial_says(export: Path) -> None:
    model = graph(export, "step")
    work, axes = graph_work(model), AXES | {"height": 65, "width": 63}
    counts = count(model, axes)
    shares = work.operations(axes) / counts.operations, work.activations(axes) / max(counts.live)
    print(f"polynomial ÷ count at 65 × 63: operations {shares[0]:.4f}, memory {shares[1]:.4f}; required 0.95 to 1")
    assert all(0.95 <= share <= 1 for share in shares)


def test_bytes_follow_the_precision(export: Path) -> None:
    half, single = (graph_work(graph(export, "step", precision)) for precision in ("float16", "float32"))
    assert half.operations(AXES) == single.operations(AXES)
    assert half.parameters == single.parameters
    assert (half.weights, single.weights) == (2 * half.parameters, 4 * half.parameters)
    assert half.bytes(AXES) == single.bytes(AXES) / 2


SMALL = """
<ir_version: 11, opset_import: ["" : 23]>
small (float[rows, 4, height, width] x) => (float[rows, 8, height, width] y)
{
    wide = Cast <to = 1> (w)
    one = Conv <pads = [1, 1, 1, 1]> (x, wide)
    gate = Sigmoid (one)
    two = Mul (one, gate)
    vide = Cast <to = 1> (v)
    three = Conv (two, vide)
    y = Add (three, one)
}
"""


def small(text: str = SMALL) -> Any:
    """The graph, its float16 weights kept elsewhere."""
    model = parser.parse_model(text)
    for name, shape in {"w": (8, 4, 3, 3), "v": (8, 8, 1, 1)}.items():
        external = onnx.TensorProto.EXTERNAL
        model.graph.initializer.add(name=name, data_type=onnx.TensorProto.FLOAT16, dims=shape, data_location=external)
    return model


def test_a_small_graph_by_hand() -> None:
    pixels = 2 * 6 * 10
    assert count(small(), {"rows": 2, "height": 6, "width": 10}) == Counts(
        parameters=8 * 4 * 9 + 64,
        weights=4 * (8 * 4 * 9 + 64),  # computed with in float32
        operations=2 * pixels * (8 * 4 * 9 + 8 * 8),
        traffic=4 * pixels * (4 + 8 + 8 + 8),
        # x and y always; `one` at its own convolution; `one`, `two` and `three` at the second
        live=(4 * pixels * (4 + 8 + 8), 4 * pixels * (4 + 8 + 8 + 8 + 8)),
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("two = Mul (one, gate)", "n = NonZero(one)\n two = Reshape(one, n)"), "cannot be sized"),
        (("two = Mul (one, gate)", "two = MatMul (one, one)"), "cannot be sized"),
        (
            (
                "two = Mul (one, gate)",
                "t = Transpose <perm = [0, 1, 3, 2]> (one)\n s = MatMul (one, t)\n two = MatMul (s, one)",
            ),
            "does not follow its axes",
        ),
    ],
)
def test_graphs_that_cannot_be_counted(change: tuple[str, str], says: str) -> None:
    with pytest.raises(ExportError, match=says) as caught:
        graph_work(small(SMALL.replace(*change)))
    assert caught.value.got
    assert caught.value.fix
