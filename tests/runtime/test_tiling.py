"""Tiles of the VAE against diffusers' tiled_decode and tiled_encode, on the demo model's VAE in float32."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeness import relative_error
from numpy.typing import NDArray
from recording_driver import RecordingDriver
from shim_onnxruntime import Shim

from sdxl_trt.bundle import MANIFEST_NAME, read_manifest, write_manifest
from sdxl_trt.errors import UsageError
from sdxl_trt.runtime import Pipeline, tiling, vae
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.device import HostDevice
from sdxl_trt.runtime.loading import load
from sdxl_trt.runtime.tiling import Tiling, choose_tile
from sdxl_trt.runtime.vae import Vae
from sdxl_trt.spec import Profile, VaeSpec

pytestmark = pytest.mark.usefixtures("one_torch_thread")

REQUIRED = 2e-5
PICTURES = 8
"""Whose seams are looked at: one alone may have its own edges there."""
ANY_SIZE = Profile.make(smallest=(8, 8), best=(128, 128), largest=(256, 256), batch=1)
SIZES = [(32, 32, 16), (27, 17, 16), (16, 30, 16), (25, 13, 8), (32, 20, 12)]
"""Height, width and tile in latent elements; the last tiles have 1 to 12."""


@pytest.fixture(scope="module")
def ours(demo_bundle: Path) -> Vae:
    """onnxruntime takes any size, whatever the bundle says of it."""
    loaded = load(demo_bundle, threads=1)
    return Vae(loaded.model.vae, ANY_SIZE, loaded.decoder, loaded.open_encoder, HostDevice())


@pytest.fixture(scope="module")
def theirs(demo_model: Path) -> Any:
    import torch
    from diffusers import AutoencoderKL

    module = AutoencoderKL.from_pretrained(demo_model / "vae", variant="fp16", torch_dtype=torch.float32)
    module.enable_tiling()
    return module


def set_tile(theirs: Any, tile: int) -> Any:
    """diffusers' tiles of so many latent elements."""
    theirs.tile_latent_min_size, theirs.tile_sample_min_size = tile, 8 * tile
    return theirs


def latents(height: int, width: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((4, height, width)).astype(np.float32)


def their_picture(theirs: Any, array: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        decoded = theirs.decode(torch.from_numpy(array)[None] / theirs.config.scaling_factor).sample
    return np.asarray(decoded[0].numpy())


@pytest.mark.parametrize(("height", "width", "tile"), SIZES)
def test_decoding_is_diffusers(ours: Vae, theirs: Any, height: int, width: int, tile: int) -> None:
    wanted = their_picture(set_tile(theirs, tile), latents(height, width))
    got = ours.decode(latents(height, width), 8 * tile)
    assert relative_error(got, wanted, REQUIRED, f"decoding {height}x{width} by {tile}") <= REQUIRED


@pytest.mark.parametrize(("height", "width", "tile"), SIZES)
def test_encoding_is_diffusers(ours: Vae, theirs: Any, height: int, width: int, tile: int) -> None:
    import torch

    pixels = np.random.default_rng(1).uniform(-1, 1, (3, 8 * height, 8 * width)).astype(np.float32)
    with torch.inference_mode():
        wanted = set_tile(theirs, tile).encode(torch.from_numpy(pixels)[None]).latent_dist.parameters[0].numpy()
    got = ours.moments(pixels, 8 * tile)
    assert relative_error(got, wanted, REQUIRED, f"encoding {height}x{width} by {tile}") <= REQUIRED


def test_one_percent_in_the_weights_is_noticed(ours: Vae, theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "_coming", lambda extent: 1.01 * np.arange(extent) / extent)
    with pytest.raises(AssertionError):
        test_decoding_is_diffusers(ours, theirs, 32, 32, 16)
    with pytest.raises(AssertionError):
        test_encoding_is_diffusers(ours, theirs, 32, 32, 16)


@pytest.mark.parametrize("least", [(1, 1), (16, 8), (24, 30)])
@pytest.mark.parametrize(("height", "width", "edge"), [(64, 64, 16), (41, 30, 8), (24, 33, 16), (100, 31, 20)])
def test_what_looks_at_no_neighbour_is_the_same_in_tiles(
    height: int, width: int, edge: int, least: tuple[int, int]
) -> None:
    ran = set()

    def run(part: NDArray[np.float32]) -> NDArray[np.float32]:
        ran.add(part.shape[1:])
        return part.repeat(3, axis=1).repeat(3, axis=2)

    array = np.random.default_rng(2).standard_normal((5, height, width)).astype(np.float32)
    tiles = Tiling(edge=edge, least=least)
    got = tiles.apply(run, array, read=1, written=3)
    np.testing.assert_allclose(got, run(array), rtol=0, atol=1e-6)
    assert ran - {(height, width)} == tiles.shapes(height, width) - {(height, width)}
    for axis in range(2):
        lengths = {shape[axis] for shape in tiles.shapes(height, width)}
        assert least[axis] <= min(lengths)
        assert max(lengths) <= max(edge, least[axis])


def steps_across(picture: NDArray[np.float32], places: list[int]) -> float:
    """Mean step between the pixels on both sides of lines, in levels of 256."""
    steps = [np.abs(picture[:, place] - picture[:, place - 1]).mean() for place in places]
    return float(np.mean(steps)) * 127.5


@pytest.mark.parametrize("tile", [64, 128])
def test_seams(ours: Vae, theirs: Any, monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    """Where tiles meet, blending takes away nine tenths of the steps that there are when tiles are just cut."""
    from scripts.demo_model.vae import draw_pictures

    drawn = draw_pictures(np.random.default_rng(3), PICTURES, whole=True)[0].numpy()
    arrays = [ours.moments(np.tile(each, (1, 3, 3))[:, :256, :256])[:4] for each in drawn]
    arrays = [array * np.float32(theirs.config.scaling_factor) for array in arrays]
    whole, blended = ([ours.decode(array, how) for array in arrays] for how in (None, tile))
    monkeypatch.setattr(tiling, "_coming", np.ones)
    cut = [ours.decode(array, tile) for array in arrays]
    places = list(range(tile * 3 // 4, 256, tile * 3 // 4))
    found = [np.mean([steps_across(each.clip(-1, 1), places) for each in made]) for made in (whole, blended, cut)]
    print("steps across seams, levels of 256: whole {:.3f}, blended {:.3f}, cut {:.3f}".format(*found))
    assert found[1] - found[0] < 0.1 * (found[2] - found[0])


SPEC = VaeSpec(scaling_factor=1.0, force_upcast=True)
SMALL_VAE = dataclasses.replace(ANY_SIZE, vae_tile=16)


@pytest.mark.parametrize(
    ("tiling", "tile", "size", "profile", "wanted"),
    [
        ("auto", None, (256, 256), ANY_SIZE, None),
        ("auto", 64, (256, 256), ANY_SIZE, None),
        ("on", None, (256, 256), ANY_SIZE, None),  # no larger than a tile
        ("on", 64, (256, 64), ANY_SIZE, 64),
        ("on", 64, (64, 64), ANY_SIZE, None),
        ("off", 64, (256, 256), ANY_SIZE, None),
        ("auto", None, (136, 128), SMALL_VAE, 128),
        ("auto", 96, (136, 128), SMALL_VAE, 96),
        ("auto", 96, (128, 128), SMALL_VAE, None),
        ("off", None, (128, 128), SMALL_VAE, None),
    ],
)
def test_where_there_are_tiles(tiling: str, tile: int | None, size: Any, profile: Profile, wanted: int | None) -> None:
    assert choose_tile(tiling, tile, size, SPEC, profile) == wanted


def test_the_tile_is_the_size_that_the_vae_was_trained_on() -> None:
    small = dataclasses.replace(SPEC, sample_size=100)
    assert choose_tile("on", None, (256, 256), small, ANY_SIZE) == 96


@pytest.mark.parametrize(
    ("tiling", "tile", "parts"),
    [
        ("maybe", None, ["vae_tiling", "auto, on, off"]),
        ("off", None, ["vae_tiling", "'off' at 256x256", "up to 128x128"]),
        ("on", 40, ["vae_tile", "a multiple of 32 up to 128"]),
        ("on", 160, ["vae_tile", "a multiple of 32 up to 128"]),
        ("on", 0, ["vae_tile", "at least 32"]),
        ("on", 64.0, ["vae_tile", "integer"]),
    ],
)
def test_what_cannot_be(tiling: Any, tile: Any, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        choose_tile(tiling, tile, (256, 256), SPEC, SMALL_VAE)
    assert all(part in str(caught.value) for part in parts), caught.value


SETTINGS: dict[str, Any] = {"prompt": "a red circle", "steps": 2, "seed": 7, "size": (256, 256)}


@pytest.fixture(scope="module")
def small_vae_bundle(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model's with a VAE for 128 pixels, and the rest for 256."""
    bundle = tmp_path_factory.mktemp("small") / "bundle"
    shutil.copytree(demo_bundle, bundle, copy_function=os.link)
    manifest = read_manifest(bundle)
    targets = tuple(
        dataclasses.replace(target, profile=dataclasses.replace(target.profile, vae_tile=16))
        for target in manifest.targets
    )
    (bundle / MANIFEST_NAME).unlink()  # not through the link
    write_manifest(bundle, dataclasses.replace(manifest, targets=targets))
    return bundle


def shapes_run(monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, int]]:
    """Of every run of the VAE's engines from now on, in latent elements."""
    ran = set[tuple[int, int]]()

    def noted(height: int, width: int) -> dict[str, int]:
        ran.add((height, width))
        return {"slots": 1, "height": height, "width": width}

    monkeypatch.setattr(vae, "_axes", noted)
    return ran


def test_pictures_larger_than_the_vae_takes(
    small_vae_bundle: Path, demo_bundle: Path, theirs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdxl_trt.runtime.images.preview import to_pixels

    pipe = Pipeline.load(small_vae_bundle, threads=1)
    ran = shapes_run(monkeypatch)
    result = pipe(**SETTINGS)
    assert result.settings.vae_tile == 128
    assert ran == {(16, 16), (16, 8), (8, 16), (8, 8)}
    wanted = to_pixels(their_picture(set_tile(theirs, 16), result.latents[0])).astype(int)
    assert np.abs(np.asarray(result.images[0], int) - wanted).max() <= 1
    asked = Pipeline.load(demo_bundle, threads=1)(**SETTINGS, vae_tiling="on")
    assert asked.settings.vae_tile == 128  # as the VAE's config says
    np.testing.assert_array_equal(asked.latents, result.latents)
    np.testing.assert_array_equal(np.asarray(asked.images[0]), np.asarray(result.images[0]))
    ran.clear()
    pipe(**SETTINGS | {"size": None}, image=result.images[0], strength=0.5)
    assert ran == {(16, 16), (16, 8), (8, 16), (8, 8)}
    with pytest.raises(UsageError, match="vae_tiling"):
        pipe(**SETTINGS, vae_tiling="off")


def test_tiles_are_warmed_up(small_vae_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipeline.load(small_vae_bundle, threads=1)
    ran = shapes_run(monkeypatch)
    pipe.warm_up([(256, 256)])
    assert ran == {(16, 16), (16, 8), (8, 16), (8, 8)}


def test_tiles_on_a_recorded_gpu(demo_bundle: Path, cuda_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is real but the driver; the last rows are fewer than the engine takes."""
    settings = SETTINGS | {"size": (64, 72), "vae_tiling": "on", "vae_tile": 64}
    wanted = Pipeline.load(demo_bundle, threads=1)(**settings)
    driver = RecordingDriver(late=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", Shim(driver))
    device = CudaDevice(driver=driver)
    with Pipeline(load(cuda_bundle, threads=1, device=device), device) as pipe:
        got = pipe(**settings)
        assert got.settings.vae_tile == 64
        assert np.abs(np.asarray(got.images[0], int) - np.asarray(wanted.images[0], int)).max() <= 1
        calls = driver.calls["cuMemAlloc"]
        pipe(**settings)
        assert driver.calls["cuMemAlloc"] == calls  # each shape of tile stays prepared
