"""Single files in the original layout: the same networks and values as the folder, from places in the one file."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import original_layout
import pytest
import single_files
from closeness import relative_error
from graph_session import GraphSession

from sdxl_trt.export.checkpoint import open_checkpoint
from sdxl_trt.export.published import published
from sdxl_trt.export.single_file import read_file
from sdxl_trt.export.trace import _fake, _network, parameter_shapes
from sdxl_trt.export.weights import match_parameters, read_tensor

REQUIRED = 1e-4

KINDS = [
    ("base", "float16"),
    ("refiner", "bfloat16"),
    ("inpaint", "float32"),
    ("ssd", "float16"),
    ("vega", "float16"),
    ("koala", "float32"),
]


@pytest.mark.parametrize(("kind", "dtype"), KINDS)
def test_networks_and_values_are_those_of_the_folder(tmp_path: Path, kind: str, dtype: str) -> None:
    networks = single_files.make(kind, dtype)
    folder = open_checkpoint(single_files.write_folder(tmp_path / "tiny", kind, networks))
    tensors = single_files.tensors_of(networks)
    file = open_checkpoint(single_files.write_file(tmp_path / "tiny.safetensors", tensors))
    assert file.components.keys() == folder.components.keys() == networks.keys()
    for field in ("name", "kind", "text_encoders", "vae", "zero_negative", "scheduler"):
        assert getattr(file.model, field) == getattr(folder.model, field), field
    assert file.tokenizers == folder.tokenizers
    for name in networks:
        with _fake("float32"):  # every module's settings are in its text
            assert str(_network(file.components[name])) == str(_network(folder.components[name]))
        ours, theirs = single_files.matched(file, name), single_files.matched(folder, name)
        assert ours.keys() == theirs.keys()
        for parameter, ref in ours.items():
            assert (ref.location, ref.dtype) == ("tiny.safetensors", dtype)
            expected = read_tensor(folder.files, theirs[parameter])
            assert np.array_equal(read_tensor(file.files, ref), expected), parameter
    assert file.model.unet == folder.model.unet


@pytest.mark.parametrize(("kind", "dtype"), [("base", "float16"), ("refiner", "bfloat16"), ("vega", "float32")])
def test_graphs_run_as_the_networks_they_came_from(tmp_path: Path, kind: str, dtype: str) -> None:
    import torch

    networks = single_files.make(kind, dtype)
    path = single_files.write_file(tmp_path / "tiny.safetensors", single_files.tensors_of(networks))
    graphs = {"base": ("text_encoder_2", "unet", "vae_decoder"), "refiner": ("text_encoder_2", "unet")}
    index = single_files.export_only(path, tmp_path / "export", *graphs.get(kind, ("unet",)))
    rng = np.random.default_rng(0)
    for graph in index.graphs["float32"]:
        session = GraphSession(tmp_path / "export", index, graph)
        feed = {
            value.name: rng.standard_normal(
                [{"tokens": 77}.get(d, 16) if isinstance(d, str) else d for d in value.shape]
            )
            for value in session.session.get_inputs()
        }
        feed = {name: array.astype(np.float32) for name, array in feed.items()}
        if "pool_index" in feed:
            feed["pool_index"] = np.arange(16, dtype=np.int32)
        with torch.no_grad():
            reference = run(graph, networks, {name: torch.from_numpy(array) for name, array in feed.items()})
        for measured, expected in zip(session.run(feed), reference, strict=True):
            error = relative_error(measured, expected.numpy(), REQUIRED, f"{kind} {dtype} {graph}")
            assert error <= REQUIRED


def run(graph: str, networks: dict[str, Any], feed: dict[str, Any]) -> list[Any]:
    """diffusers' and transformers' own modules, in float32."""
    import torch

    network = networks[{"unet": "unet", "vae_decoder": "vae"}.get(graph, graph)].float()
    if graph == "unet":
        added = {"text_embeds": feed["pooled"], "time_ids": feed["time_ids"]}
        return [network(feed["sample"], feed["timestep"], feed["text"], added_cond_kwargs=added).sample]
    if graph == "vae_decoder":
        return [network.decode(feed["latents"] / network.config.scaling_factor).sample]
    projection = getattr(network, "text_projection", None)
    text = getattr(network, "text_model", network)
    states = [feed["embeddings"] + text.embeddings.position_embedding.weight]
    for layer in text.encoder.layers:
        states.append(layer(states[-1], None, is_causal=True))
    pooled = text.final_layer_norm(states[-1][torch.arange(len(states[-1])), feed["pool_index"].long()])
    return [torch.stack(states), pooled if projection is None else projection(pooled)]


def test_a_transposed_matrix_is_converted_the_right_way_round(tmp_path: Path) -> None:
    """float32 file, float16 graph: OpenCLIP's last projection goes through the conversion."""
    networks = single_files.make("base", "float32")
    path = single_files.write_file(tmp_path / "tiny.safetensors", single_files.tensors_of(networks))
    checkpoint = open_checkpoint(path)
    assert single_files.matched(checkpoint, "text_encoder_2")["text_projection.weight"].transposed
    index = single_files.export_only(path, tmp_path / "export", "text_encoder_2", precision="float16")
    (location,) = index.graphs["float16"]["text_encoder_2"].weights
    from safetensors.numpy import load_file

    converted = load_file(tmp_path / "export" / location)["text_projection.weight"]
    expected = networks["text_encoder_2"].text_projection.weight.detach().numpy().astype(np.float16)
    assert np.array_equal(converted, expected)


ANCHORS = {
    "base": (
        "model.diffusion_model.output_blocks.5.1.transformer_blocks.1.attn2.to_k.weight",
        "model.diffusion_model.input_blocks.8.1.transformer_blocks.9.ff.net.0.proj.weight",
        "model.diffusion_model.output_blocks.2.2.conv.weight",
        "model.diffusion_model.label_emb.0.2.bias",
        "conditioner.embedders.0.transformer.text_model.encoder.layers.11.mlp.fc2.bias",
        "conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_weight",
        "conditioner.embedders.1.model.text_projection",
        "first_stage_model.decoder.mid.attn_1.q.weight",
        "first_stage_model.decoder.up.3.upsample.conv.weight",
        "first_stage_model.encoder.down.2.block.0.nin_shortcut.weight",
    ),
    "refiner": (
        "model.diffusion_model.middle_block.1.transformer_blocks.3.attn2.to_k.weight",
        "model.diffusion_model.output_blocks.2.1.conv.weight",
        "conditioner.embedders.0.model.transformer.resblocks.31.attn.in_proj_bias",
    ),
}
"""Names that the published files have."""


PUBLISHED_BYTES = {"base": 6_938_078_334, "refiner": 6_075_981_930}
"""Sizes of sd_xl_base_1.0.safetensors and sd_xl_refiner_1.0.safetensors."""


@pytest.mark.parametrize("kind", ["base", "refiner"])
def test_files_of_the_true_size(tmp_path: Path, kind: str) -> None:
    """All tensors of the published files find their parameter, and none is left over. The values are a hole."""
    import diffusers
    import torch
    import transformers

    configs = published(kind)
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel.from_config(configs["unet"])
        vae = diffusers.AutoencoderKL.from_config(configs["vae"])
        encoder_2 = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**configs["text_encoder_2"]))
        encoder = None
        if kind == "base":
            encoder = transformers.CLIPTextModel(transformers.CLIPTextConfig(**configs["text_encoder"]))
        tensors = original_layout.original(unet, vae, encoder, encoder_2)
    assert set(ANCHORS[kind]) <= tensors.keys()
    path = tmp_path / "sd_xl.safetensors"
    original_layout.write_sparse(path, tensors)
    size = path.stat().st_size
    print(f"{kind}: {len(tensors)} tensors, measured {size:,} bytes, the published file has {PUBLISHED_BYTES[kind]:,}")
    assert 0 < PUBLISHED_BYTES[kind] - size < 65_536  # their metadata, and tensors that are no parameters
    parts = read_file(path)
    used: Counter[int] = Counter()
    for name, component in parts.components.items():
        found = match_parameters(name, parameter_shapes(component), component.tensors)
        for ref in found.values():
            used[ref.offset] += ref.length
        print(f"{kind} {name}: {len(found)} parameters")
    assert {ref.location for part in parts.components.values() for ref in part.tensors.values()} == {path.name}
    # Together they cover the file from the header's end to its own, each byte once.
    offset = min(used)
    for start in sorted(used):
        assert start == offset
        offset += used[start]
    assert offset == path.stat().st_size
    assert len(parts.components["unet"].tensors) == {"base": 1680, "refiner": 1220}[kind]


MEASURE = """
import re, sys
from pathlib import Path
from sdxl_trt.export.safetensors import read_header
from sdxl_trt.export.weights import convert

def peak():  # unlike getrusage's, not that of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

before, root = peak(), Path(sys.argv[1])
convert({"x": root / "x"}, read_header(root, "x"), "float16", root / "converted", "converted")
print(peak() - before)
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_conversion_streams(tmp_path: Path, dtype: str) -> None:
    """Peak memory of converting 400 MB, one tensor of 250 MB among them (SDXL's largest in float32)."""
    import torch
    from safetensors.torch import save_file

    item = 4 if dtype == "float32" else 2
    tensors = {
        f"t{i}": torch.full((size * 2**20 // item,), 0.5, dtype=getattr(torch, dtype))
        for i, size in enumerate((150, 250))
    }
    save_file(tensors, tmp_path / "x")
    del tensors
    out = subprocess.run([sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True)
    grown = int(out.stdout) / 1024
    print(f"{dtype}: peak memory grew by {grown:.0f} MiB, required 150")
    assert grown < 150
    assert (tmp_path / "converted").stat().st_size > 400 * 2**20 // item * 2
