"""What is refused when a bundle is opened, and with which advice."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdxl_trt.bundle import Blob, BlobStore, Manifest, Target, read_manifest, write_manifest
from sdxl_trt.errors import BundleError, NoTargetForHost, UsageError
from sdxl_trt.runtime import Pipeline
from sdxl_trt.spec import TensorSpec


@pytest.fixture
def bundle(demo_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(demo_bundle, tmp_path / "bundle"))


def change_target(bundle: Path, **changes: Any) -> None:
    manifest = read_manifest(bundle)
    write_manifest(bundle, replace(manifest, targets=(replace(manifest.targets[0], **changes),)))


def change_model(bundle: Path, **changes: Any) -> None:
    manifest = read_manifest(bundle)
    write_manifest(bundle, replace(manifest, model=replace(manifest.model, **changes)))


def put_file(bundle: Path, name: str, content: bytes) -> None:
    """Another content for one of the bundle's files, under its own right hash."""
    store, manifest = BlobStore(bundle), read_manifest(bundle)
    with store.lock():
        blob = store.put_bytes(content)
    write_manifest(bundle, replace(manifest, files={**manifest.files, name: blob}))


def table_bytes(tmp_path: Path, array: Any) -> bytes:
    np.save(tmp_path / "table.npy", array, allow_pickle=True)
    return (tmp_path / "table.npy").read_bytes()


def test_engines_for_a_gpu_are_named_with_what_runs_them(bundle: Path) -> None:
    change_target(bundle, flavour="tensorrt-rtx", flavour_version="1.7.1", sms=(86,))
    with pytest.raises(NoTargetForHost, match="runs on this host") as caught:
        Pipeline.load(bundle)
    assert "needs tensorrt-rtx 1.7.1, which cannot run here" in caught.value.got
    assert "--device cuda (device='cuda' in Python) runs tensorrt-rtx engines" in caught.value.fix
    assert "--gpu cpu" in caught.value.fix


def test_without_onnxruntime_the_advice_is_to_install_it(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NoTargetForHost) as caught:
        Pipeline.load(bundle)
    assert "pip install 'sdxl-trt[cpu]'" in caught.value.fix


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"processor": "riscv64"}, "built for a riscv64 processor"),
        ({"flavour_version": "99.0.0"}, "built with onnxruntime 99.0.0, this host has"),
    ],
)
def test_a_target_for_another_host_is_refused(bundle: Path, changes: dict[str, Any], got: str) -> None:
    change_target(bundle, **changes)
    with pytest.raises(NoTargetForHost) as caught:
        Pipeline.load(bundle)
    assert got in caught.value.got
    assert "sdxl-trt build" in caught.value.fix


def test_threads_must_be_positive(demo_bundle: Path) -> None:
    with pytest.raises(UsageError, match="threads"):
        Pipeline.load(demo_bundle, threads=0)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle"):
        Pipeline.load(str(tmp_path))


def engine_file(manifest: Manifest) -> Blob:
    return manifest.targets[0].engines["vae_decoder"].file


def engine_weights(manifest: Manifest) -> Blob:
    return manifest.targets[0].engines["text_encoder"].weights[0]


def tokenizer_file(manifest: Manifest) -> Blob:
    return manifest.files["text_encoder_2/tokenizer.json"]


def table_file(manifest: Manifest) -> Blob:
    return manifest.files["text_encoder/token_embedding.npy"]


@pytest.mark.parametrize("which", [engine_file, engine_weights, tokenizer_file, table_file])
def test_a_file_with_one_bit_changed_is_refused(bundle: Path, which: Callable[[Manifest], Blob]) -> None:
    path = BlobStore(bundle).path(which(read_manifest(bundle)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="is damaged or was altered") as caught:
        Pipeline.load(bundle)
    assert path.name in str(caught.value)


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.zeros((603, 64), np.float16), r"float16 \[603, 64\]"),
        (np.zeros((604, 64), np.float64), r"float64 \[604, 64\]"),
        (np.array([{"a": 1}] * 3, object), "Python objects"),
    ],
)
def test_another_table_is_refused(bundle: Path, tmp_path: Path, array: Any, got: str) -> None:
    put_file(bundle, "text_encoder/token_embedding.npy", table_bytes(tmp_path, array))
    with pytest.raises(BundleError, match="token embeddings of text_encoder.*\n.*" + got):
        Pipeline.load(bundle)


def test_a_table_that_ends_too_soon_is_refused(bundle: Path, tmp_path: Path) -> None:
    put_file(bundle, "text_encoder/token_embedding.npy", table_bytes(tmp_path, np.zeros((604, 64), np.float16))[:-1])
    with pytest.raises(BundleError, match="token embeddings of text_encoder"):
        Pipeline.load(bundle)


def test_a_missing_engine_or_file_is_named(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    engines = {name: entry for name, entry in manifest.targets[0].engines.items() if name != "step"}
    change_target(bundle, engines=engines)
    with pytest.raises(BundleError, match="no step"):
        Pipeline.load(bundle)
    files = {name: blob for name, blob in manifest.files.items() if name != "text_encoder/tokenizer.json"}
    write_manifest(bundle, replace(manifest, files=files))
    with pytest.raises(BundleError, match=r"no text_encoder/tokenizer\.json"):
        Pipeline.load(bundle)


def with_step_inputs(target: Target, change: Callable[[TensorSpec], TensorSpec]) -> dict[str, Any]:
    step = target.engines["step"]
    return {**target.engines, "step": replace(step, inputs=tuple(change(tensor) for tensor in step.inputs))}


def test_tensors_that_the_model_does_not_have_are_refused(bundle: Path) -> None:
    target = read_manifest(bundle).targets[0]
    renamed = with_step_inputs(target, lambda t: replace(t, name="novel") if t.name == "mask" else t)
    change_target(bundle, engines=renamed)
    with pytest.raises(BundleError, match=r"inputs of step.*\n.*mask, novel"):
        Pipeline.load(bundle)


def test_a_model_of_another_width_than_its_engines_is_refused(bundle: Path) -> None:
    change_model(bundle, unet=replace(read_manifest(bundle).model.unet, text=129))
    with pytest.raises(BundleError, match=r"inputs of step.*\n.*text"):
        Pipeline.load(bundle)
