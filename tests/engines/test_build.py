"""The build stage with its real libraries: what it writes, what it keeps, what it refuses."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from sdxl_trt.bundle import BlobStore, Host, Manifest, choose_target, read_manifest, write_manifest
from sdxl_trt.costs import graph_work
from sdxl_trt.engines.acceptance import random_inputs
from sdxl_trt.engines.build import build
from sdxl_trt.engines.targets import resolve_targets
from sdxl_trt.errors import BuildError, BundleError, ExportError
from sdxl_trt.exported import read_index, write_index
from sdxl_trt.spec import Profile, graph_spec, model_graphs

MakeExport = Callable[..., Path]
CPU, RTX = "onnxruntime-x86_64", "tensorrt-rtx-sm86"


class Stages:
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.lock, self.seen = threading.Lock(), list[tuple[str, int, int]]()

    def __call__(self, stage: str, done: int, total: int) -> None:
        with self.lock:
            self.seen.append((stage, done, total))

    def built(self) -> set[str]:
        """Engines that were built, not found."""
        return {stage.removeprefix("build ") for stage, _, _ in self.seen if stage.startswith("build ")}


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file's inode and time of change."""
    stats = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {str(path.relative_to(folder)): (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


def check_bundle(bundle: Path, manifest: Manifest) -> None:
    """bundle.json says what was returned; every file it names is sound, and there is no other."""
    assert read_manifest(bundle) == manifest
    blobs = manifest.blobs()
    for blob in blobs.values():
        BlobStore(bundle).verify(blob, "a blob")
    assert set(files(bundle)) == {"bundle.json", ".lock", *(f"blobs/sha256/{name}" for name in blobs)}
    assert not (bundle / ".pending").exists()


@pytest.fixture(scope="module")
def finished(export: Path, profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for the CPU and for an RTX 3060; not to be changed."""
    bundle = tmp_path_factory.mktemp("finished")
    build(export, bundle, resolve_targets(["cpu", "rtx3060"]), profile=profile)
    return bundle


@pytest.fixture
def bundle(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished bundle."""
    return Path(shutil.copytree(finished, tmp_path / "bundle"))


def test_bundle_holds_everything_once(finished: Path, export: Path, profile: Profile) -> None:
    manifest = read_manifest(finished)
    check_bundle(finished, manifest)
    index = read_index(export)
    assert manifest.model == index.model
    assert manifest.files == index.files
    cpu, rtx = manifest.targets
    assert (cpu.name, cpu.precision, cpu.sms, cpu.accepted) == (CPU, "float32", (), True)
    assert (rtx.name, rtx.precision, rtx.sms, rtx.accepted) == (RTX, "float16", (86,), False)
    assert cpu.profile == rtx.profile == profile
    for target in manifest.targets:
        assert set(target.engines) == set(model_graphs(index.model))
        for name, engine in target.engines.items():
            spec = graph_spec(name, index.model, target.precision)
            assert (engine.inputs, engine.outputs) == (spec.inputs, spec.outputs)
            path = export / index.graphs[target.precision][name].file
            assert engine.work == graph_work(onnx.load(path, load_external_data=False))
    assert all(not engine.weights for engine in rtx.engines.values())
    weights = [engine.weights[0] for engine in cpu.engines.values()]
    assert all(len(engine.weights) == 1 for engine in cpu.engines.values())
    kinds = [*manifest.files.values(), *weights, *(e.file for t in manifest.targets for e in t.engines.values())]
    assert len(manifest.blobs()) == len(kinds), "something is stored twice"


def test_onnxruntime_engines_run_from_the_bundle(finished: Path) -> None:
    manifest = read_manifest(finished)
    target = manifest.targets[0]
    rng = np.random.default_rng(1)
    for name, engine in target.engines.items():
        session = onnxruntime.InferenceSession(
            BlobStore(finished).path(engine.file), providers=["CPUExecutionProvider"]
        )
        spec = graph_spec(name, manifest.model, target.precision)
        axes = {"rows": 3, "slots": 1, "height": 9, "width": 11, "tokens": 8}
        outputs = session.run(None, random_inputs(spec, axes, rng))
        assert all(np.isfinite(output).all() and np.abs(output).max() > 0 for output in outputs), name


def test_second_build_changes_nothing(bundle: Path, export: Path, profile: Profile) -> None:
    before, stages = files(bundle), Stages()
    build(export, bundle, resolve_targets(["cpu", "rtx3060"]), profile=profile, progress=stages)
    assert stages.built() == set()
    assert sum(stage.startswith("found ") for stage, _, _ in stages.seen) == 10
    assert files(bundle) == before


def test_a_bundle_of_an_earlier_version_learns_the_work_of_its_engines(
    bundle: Path, export: Path, profile: Profile
) -> None:
    manifest, stages = read_manifest(bundle), Stages()
    targets = tuple(
        dataclasses.replace(
            target, engines={name: dataclasses.replace(e, work=None) for name, e in target.engines.items()}
        )
        for target in manifest.targets
    )
    write_manifest(bundle, dataclasses.replace(manifest, schema=2, targets=targets))
    build(export, bundle, resolve_targets(["cpu", "rtx3060"]), profile=profile, progress=stages)
    assert stages.built() == set()
    assert dataclasses.replace(read_manifest(bundle), created=manifest.created) == manifest


def test_targets_are_kept_and_replaced(bundle: Path, export: Path, profile: Profile) -> None:
    old = read_manifest(bundle)
    wider = Profile.make(smallest=(64, 64), best=(64, 64), largest=(192, 128), batch=2, tokens=8, chunks=2)
    stages = Stages()
    new = build(export, bundle, resolve_targets(["cpu"]), profile=wider, progress=stages)
    check_bundle(bundle, new)
    assert stages.built() == {f"{CPU} {name}" for name in ("step", "vae_decoder", "vae_encoder")}
    assert [target.name for target in new.targets] == [CPU, RTX]
    assert new.targets[1] == old.targets[1]
    assert new.targets[0].profile == wider
    assert new.targets[0].engines["text_encoder"] == old.targets[0].engines["text_encoder"]


def test_a_vae_for_tiles_leaves_the_other_engines_as_they_are(bundle: Path, export: Path, profile: Profile) -> None:
    stages, tiled = Stages(), dataclasses.replace(profile, vae_tile=8)
    new = build(export, bundle, resolve_targets(["cpu", "rtx3060"]), profile=tiled, progress=stages)
    check_bundle(bundle, new)
    assert stages.built() == {f"{target} {name}" for target in (CPU, RTX) for name in ("vae_decoder", "vae_encoder")}
    assert all(target.profile == tiled for target in new.targets)


def test_rtx_gpus_share_a_plan_of_the_same_size(bundle: Path, export: Path, profile: Profile) -> None:
    manifest = build(export, bundle, resolve_targets(["rtx3060", "rtx4090", "rtx3090"]), profile=profile)
    check_bundle(bundle, manifest)
    shared, single = manifest.targets[2], manifest.targets[1]
    assert (shared.name, shared.sms, single.name) == ("tensorrt-rtx-sm86-sm89", (86, 89), RTX)
    sizes = [sum(e.file.bytes for e in target.engines.values()) for target in (shared, single)]
    print(f"plans for SM 86 and 89: {sizes[0]} bytes, for SM 86 alone: {sizes[1]}")
    assert sizes[0] < 1.05 * sizes[1]


def test_portable_plans_are_for_gpus_that_have_none(bundle: Path, export: Path, profile: Profile) -> None:
    manifest = build(export, bundle, resolve_targets(["portable"]), profile=profile)
    check_bundle(bundle, manifest)
    (portable,) = (target for target in manifest.targets if target.name == "tensorrt-rtx-portable")
    assert portable.sms == ()
    for sm, name in ((86, RTX), (89, portable.name), (121, portable.name)):
        host = Host(processor=portable.processor, flavours={portable.flavour: portable.flavour_version}, sm=sm)
        assert choose_target(manifest, host, bundle).name == name


def test_progress_is_told_of_every_stage(export: Path, profile: Profile, tmp_path: Path) -> None:
    stages = Stages()
    build(export, tmp_path, resolve_targets(["rtx3060"]), profile=profile, progress=stages)
    open_stages: dict[str, int] = {}
    for stage, done, total in stages.seen:
        assert 0 <= done <= total, stage
        assert done >= open_stages.get(stage, 0), f"{stage} goes backwards"
        open_stages[stage] = 0 if done == total else done
    assert not any(open_stages.values())
    steps = [done for stage, done, _ in stages.seen if stage == f"build {RTX} step"]
    assert steps[0] == 0
    assert steps[-1] == 100
    assert len(steps) > 10, steps


def test_another_model_is_refused(bundle: Path, make_export: MakeExport, profile: Profile, tmp_path: Path) -> None:
    other, before = make_export(tmp_path / "other", seed=1), files(bundle)
    with pytest.raises(BundleError, match="another model"):
        build(other, bundle, resolve_targets(["cpu"]), profile=profile)
    assert files(bundle) == before


@pytest.mark.parametrize("gpu", ["cpu", "rtx3060"])
@pytest.mark.parametrize("damage", ["weights", "graph", "tokenizer", "missing"])
def test_changed_export_is_refused(
    damage: str, gpu: str, make_export: MakeExport, profile: Profile, tmp_path: Path
) -> None:
    export = make_export(tmp_path / "model")
    precision = {"cpu": "float32", "rtx3060": "float16"}[gpu]
    path = {
        "weights": tmp_path / "model/checkpoint/unet/model.safetensors",
        "graph": export / precision / "step.onnx",
        "tokenizer": export / "text_encoder/tokenizer.json",
        "missing": tmp_path / "model/checkpoint/unet/model.safetensors",
    }[damage]
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ExportError, match=path.name) as caught:
        build(export, tmp_path / "bundle", resolve_targets([gpu]), profile=profile)
    assert caught.value.fix.startswith("export again")
    assert not (tmp_path / "bundle/bundle.json").exists()


def test_missing_precision_is_named(make_export: MakeExport, profile: Profile, tmp_path: Path) -> None:
    export = make_export(tmp_path, precisions=("float16",))
    with pytest.raises(ExportError, match="no float32 graph of text_encoder"):
        build(export, tmp_path / "bundle", resolve_targets(["cpu"]), profile=profile)


def test_graph_of_other_tensors_is_refused(make_export: MakeExport, profile: Profile, tmp_path: Path) -> None:
    export = make_export(tmp_path)
    index = read_index(export)
    graphs = {**index.graphs["float32"], "text_encoder": index.graphs["float16"]["text_encoder"]}
    write_index(export, dataclasses.replace(index, graphs={**index.graphs, "float32": graphs}))
    with pytest.raises(ExportError, match="inputs") as caught:
        build(export, tmp_path / "bundle", resolve_targets(["cpu"]), profile=profile)
    assert "embeddings float16" in caught.value.got
    assert "embeddings float32" in caught.value.expected


def test_refused_node_is_one_clear_error(make_export: MakeExport, profile: Profile, tmp_path: Path) -> None:
    export = make_export(tmp_path, bodies={"vae_decoder": "image = Unknown(latents)"}, precisions=("float16",))
    bundle = tmp_path / "bundle"
    with pytest.raises(BuildError) as caught:
        build(export, bundle, resolve_targets(["rtx3060"]), profile=profile)
    message = caught.value
    assert "vae_decoder" in message.what
    assert "Unknown" in message.got + message.expected
    assert message.fix
    assert not (bundle / "bundle.json").exists()
    assert not list(bundle.rglob(".sdxl-trt-tmp-*"))
    assert len(list((bundle / ".pending").glob("*.json"))) == 3, "the engines before it are kept for the next build"


WIDE_ATTENTION = """
    tiles = Constant <value_ints = [1, 1, 1, {tiles}]> ()
    wide = Tile(heads, tiles)
    keys = Neg(wide)
    values = Abs(wide)
    mixed = Attention(wide, keys, values)
"""
"""One head of 512 channels, as in SDXL's VAE: no library has a fused kernel for it."""

ATTENTION_IN_TEXT_ENCODER = f"""
    plain = MatMul(embeddings, layer)
    head = Constant <value_ints = [1]> ()
    heads = Unsqueeze(plain, head)
    {WIDE_ATTENTION.format(tiles=32)}
    last = Constant <value_ints = [-1]> ()
    mean = ReduceMean <keepdims = 1> (mixed, last)
    less = Squeeze(mean, head)
    deep = Add(plain, less)
    layers = Constant <value_ints = [0]> ()
    first = Unsqueeze(embeddings, layers)
    second = Unsqueeze(deep, layers)
    hidden = Concat <axis = 0> (first, second)
    wide_index = Cast <to = 7> (pool_index)
    places = Unsqueeze(wide_index, last)
    picked = GatherND <batch_dims = 1> (deep, places)
    pooled = MatMul(picked, projection)
"""
ATTENTION_IN_VAE = f"""
    given = Cast <to = DTYPE> (latents)
    shape = Constant <value_ints = [0, 1, -1, 4]> ()
    heads = Reshape(given, shape)
    {WIDE_ATTENTION.format(tiles=128)}
    least = ReduceMean <keepdims = 1> (mixed)
    taken = Cast <to = 1> (least)
    shifted = Add(latents, taken)
    small = Conv <pads = [1, 1, 1, 1]> (shifted, decode)
    scales = Constant <value_floats = [1.0, 1.0, 8.0, 8.0]> ()
    image = Resize <mode = "nearest"> (small, , scales)
"""


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.FLOAT], ids=["float16", "float32"])
def test_attention_of_the_vae_is_taken_apart(
    dtype: int, make_export: MakeExport, profile: Profile, tmp_path: Path
) -> None:
    bodies = {"vae_decoder": ATTENTION_IN_VAE.replace("DTYPE", str(dtype))}
    export, bundle = make_export(tmp_path, bodies=bodies, precisions=("float16",)), tmp_path / "bundle"
    check_bundle(bundle, build(export, bundle, resolve_targets(["rtx3060"]), profile=profile))


def test_attention_elsewhere_is_fused_or_refused(make_export: MakeExport, profile: Profile, tmp_path: Path) -> None:
    export = make_export(tmp_path, bodies={"text_encoder": ATTENTION_IN_TEXT_ENCODER}, precisions=("float16",))
    with pytest.raises(BuildError, match="text_encoder") as caught:
        build(export, tmp_path / "bundle", resolve_targets(["rtx3060"]), profile=profile)
    assert "Attention operation was not supported by a dedicated kernel" in caught.value.got


def test_damage_is_repaired_or_reported(bundle: Path, export: Path, profile: Profile) -> None:
    manifest, store = read_manifest(bundle), BlobStore(bundle)
    step, weights = manifest.targets[1].engines["step"].file, manifest.targets[0].engines["step"].weights[0]
    data = store.path(step).read_bytes()
    store.path(step).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleError, match="which this build would keep, is damaged"):
        build(export, bundle, resolve_targets(["cpu"]), profile=profile)
    store.path(weights).unlink()
    stages = Stages()
    repaired = build(export, bundle, resolve_targets(["cpu", "rtx3060"]), profile=profile, progress=stages)
    check_bundle(bundle, repaired)
    assert stages.built() == {f"{CPU} step", f"{RTX} step"}


def test_ctrl_c_ends_a_compilation(export: Path, profile: Profile, tmp_path: Path) -> None:
    pressed = threading.Event()

    def press(stage: str, done: int, total: int) -> None:
        if stage == f"build {RTX} step" and done > 10 and not pressed.is_set():
            pressed.set()
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build(export, tmp_path, resolve_targets(["rtx3060"]), profile=profile, progress=press)
    assert pressed.is_set()
    assert not list(tmp_path.rglob(".sdxl-trt-tmp-*"))
    stages = Stages()
    check_bundle(tmp_path, build(export, tmp_path, resolve_targets(["rtx3060"]), profile=profile, progress=stages))
    assert f"{RTX} text_encoder_2" not in stages.built(), "what was finished before is used"
    assert f"{RTX} step" in stages.built()
