"""A base model and its refiner in one bundle: what is shared, kept, replaced and refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdxl_trt.bundle import BlobStore, Manifest, read_manifest
from sdxl_trt.engines.build import build
from sdxl_trt.engines.source import blob_of
from sdxl_trt.engines.targets import resolve_targets
from sdxl_trt.errors import BundleError, UsageError
from sdxl_trt.exported import read_index, write_index
from sdxl_trt.spec import Profile

MakeExport = Callable[..., Path]
SHARED = ("text_encoder_2", "vae_decoder", "vae_encoder")


@pytest.fixture(scope="module")
def refiner(make_export: MakeExport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model's refiner, with its second text encoder and its VAE; not to be changed."""
    return make_export(tmp_path_factory.mktemp("refiner"), refiner=True)


def build_both(
    base: Path, refiner: Path | None, bundle: Path, profile: Profile, *gpus: str
) -> tuple[Manifest, set[str]]:
    """The manifest, and the engines that were built, not found."""
    built: set[str] = set()

    def progress(stage: str, _done: int, _total: int) -> None:
        if stage.startswith("build "):
            built.add(stage.split(" ", 2)[2])

    requests = resolve_targets(gpus or ["cpu"])
    manifest = build(base, bundle, requests, profile=profile, refiner=refiner, progress=progress)
    assert read_manifest(bundle) == manifest
    for blob in manifest.blobs().values():
        BlobStore(bundle).verify(blob, "a blob")
    assert {path.name for path in BlobStore(bundle).folder.iterdir()} == set(manifest.blobs())
    return manifest, built


def test_what_both_have_is_built_and_stored_once(export: Path, refiner: Path, profile: Profile, tmp_path: Path) -> None:
    manifest, built = build_both(export, refiner, tmp_path, profile, "cpu", "rtx3060")
    assert built == {"text_encoder", "text_encoder_2", "step", "vae_decoder", "vae_encoder", "refiner step"}
    assert manifest.refiner is not None
    assert manifest.refiner.model == read_index(refiner).model
    assert manifest.refiner.files == {n: b for n, b in manifest.files.items() if not n.startswith("text_encoder/")}
    for target in manifest.targets:
        assert set(target.refiner) == {"step", *SHARED}
        assert all(target.refiner[name] == target.engines[name] for name in SHARED)
        assert target.refiner["step"].file != target.engines["step"].file
    again, built = build_both(export, refiner, tmp_path, profile, "cpu", "rtx3060")
    assert (again, built) == (manifest, set())


def test_a_refiner_of_other_parts_has_its_own(
    export: Path, make_export: MakeExport, profile: Profile, tmp_path: Path
) -> None:
    other = make_export(tmp_path / "other", refiner=True, seed=1)
    manifest, _ = build_both(export, other, tmp_path / "bundle", profile)
    target = manifest.targets[0]
    assert all(target.refiner[name].weights != target.engines[name].weights for name in SHARED)


def test_parts_from_files_of_other_names_are_stored_once(
    export: Path, make_export: MakeExport, profile: Profile, tmp_path: Path
) -> None:
    """Of one content, in other files than the base's: as in a checkpoint that is one file."""
    other = make_export(tmp_path / "other", refiner=True, file="weights.safetensors")
    manifest, built = build_both(export, other, tmp_path / "bundle", profile, "cpu", "rtx3060")
    assert {name for name in built if name.startswith("refiner")} == {"refiner step"}
    for target in manifest.targets:
        assert all(target.refiner[name] == target.engines[name] for name in SHARED)


def test_one_other_weight_is_another_engine(
    export: Path, make_export: MakeExport, profile: Profile, tmp_path: Path
) -> None:
    other = make_export(tmp_path / "other", refiner=True)
    path = tmp_path / "other/checkpoint/vae/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x3c")
    index = read_index(other)
    changed = dataclasses.replace(index.weights["vae/model.safetensors"], content=blob_of(path))
    write_index(other, dataclasses.replace(index, weights={**index.weights, "vae/model.safetensors": changed}))
    manifest, _ = build_both(export, other, tmp_path / "bundle", profile)
    target = manifest.targets[0]
    same = {name for name in SHARED if target.refiner[name] == target.engines[name]}
    assert len(same) == 2
    assert "text_encoder_2" in same


def test_a_refiner_comes_and_goes(export: Path, refiner: Path, profile: Profile, tmp_path: Path) -> None:
    build_both(export, None, tmp_path, profile, "cpu", "rtx3060")
    manifest, built = build_both(export, refiner, tmp_path, profile)
    assert built == {"refiner step"}
    assert [bool(target.refiner) for target in manifest.targets] == [True, False]
    kept, _ = build_both(export, None, tmp_path, profile, "rtx3060")
    assert kept.refiner == manifest.refiner
    gone, _ = build_both(export, None, tmp_path, profile)
    assert gone.refiner is None


def test_another_refiner_is_refused(
    export: Path, refiner: Path, make_export: MakeExport, profile: Profile, tmp_path: Path
) -> None:
    build_both(export, refiner, tmp_path / "bundle", profile)
    other = make_export(tmp_path / "other", refiner=True, seed=1)
    with pytest.raises(BundleError, match="another model") as caught:
        build(export, tmp_path / "bundle", resolve_targets(["cpu"]), profile=profile, refiner=other)
    assert "small-refiner" in caught.value.got


@pytest.mark.parametrize(
    ("changes", "what", "got", "expected"),
    [
        ({"vae": {"scaling_factor": 0.25}}, "other latents", "scaling_factor 0.25", "scaling_factor 0.5"),
        ({"vae": {"latents_mean": (1.0,) * 4}}, "other latents", "latents_mean (1.0,", "latents_mean ()"),
        ({"unet": {"channels": 9}}, "other latents", "9 channels", "one of 4"),
    ],
)
def test_incompatible_refiners_are_refused(
    changes: dict[str, Any], what: str, got: str, expected: str,
    export: Path, make_export: MakeExport, profile: Profile, tmp_path: Path,
) -> None:  # fmt: skip
    other = make_export(tmp_path / "other", refiner=True)
    index = read_index(other)
    parts = {name: dataclasses.replace(getattr(index.model, name), **each) for name, each in changes.items()}
    write_index(other, dataclasses.replace(index, model=dataclasses.replace(index.model, **parts)))
    with pytest.raises(UsageError, match=what) as caught:
        build(export, tmp_path / "bundle", resolve_targets(["cpu"]), profile=profile, refiner=other)
    assert got in caught.value.got
    assert expected in caught.value.expected
    assert caught.value.fix
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(("swapped", "what"), [(True, "cannot have a refiner"), (False, "is no refiner")])
def test_a_model_of_the_wrong_kind_is_refused(
    swapped: bool, what: str, export: Path, refiner: Path, profile: Profile, tmp_path: Path
) -> None:
    base, second = (refiner, export) if swapped else (export, export)
    with pytest.raises(UsageError, match=what) as caught:
        build(base, tmp_path / "bundle", resolve_targets(["cpu"]), profile=profile, refiner=second)
    assert caught.value.got
    assert caught.value.expected
    assert "--refiner" in caught.value.fix
