"""Sampling of the VAE's moments, and previews, against diffusers with the demo model's VAE."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import picture

from sdxl_trt.runtime.images.latents import sample_moments
from sdxl_trt.runtime.images.preview import SDXL_FACTORS, PreviewFactors, colour_chart, fit_factors, preview, to_pixels
from sdxl_trt.runtime.images.resizing import preprocess
from sdxl_trt.runtime.noise import TorchGenerator
from sdxl_trt.spec import VaeSpec

REQUIRED = 1e-6  # of the largest latent
PREVIEW_REQUIRED = 16.0  # dB


@pytest.fixture(scope="module")
def pipelines(demo_model: Path) -> Iterator[dict[str, Any]]:
    """diffusers' image-to-image and inpainting pipelines of the demo model, float32."""
    import torch
    from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline

    base = StableDiffusionXLImg2ImgPipeline.from_pretrained(demo_model, dtype=torch.float32, variant="fp16")
    with torch.no_grad():
        yield {"image": base, "inpaint": StableDiffusionXLInpaintPipeline(**base.components)}


def encode(vae: Any, seed: int = 0) -> tuple[Any, Any]:
    """(pixels [1, 3, 128, 128], moments [1, 8, 16, 16]) of a picture."""
    import torch

    pixels = torch.from_numpy(preprocess(picture((128, 128), seed=seed), (128, 128)))[None]
    return pixels, vae.encode(pixels).latent_dist.parameters


def spec(vae: Any) -> VaeSpec:
    config = vae.config
    mean, std = (tuple(config[name] or ()) for name in ("latents_mean", "latents_std"))
    return VaeSpec(scaling_factor=config.scaling_factor, force_upcast=False, latents_mean=mean, latents_std=std)


def assert_close(ours: np.ndarray, wanted: np.ndarray) -> None:
    assert (ours.dtype, ours.shape) == (np.float32, wanted.shape)
    error = float(np.abs(ours - wanted).max() / np.abs(wanted).max())
    print(f"largest difference of the largest value: measured {error:.1e}, required {REQUIRED:.0e}")
    assert error <= REQUIRED


@pytest.mark.parametrize("scaled", [False, True], ids=["factor alone", "mean and std"])
@pytest.mark.parametrize("seed", [0, 7])
def test_samples_are_the_image_to_image_pipelines(pipelines: dict[str, Any], seed: int, scaled: bool) -> None:
    import torch

    pipeline = pipelines["image"]
    own = {name: pipeline.vae.config[name] for name in ("latents_mean", "latents_std")}
    assert own == {"latents_mean": None, "latents_std": None}
    if scaled:
        pipeline.vae.register_to_config(latents_mean=[0.5, -1, 2, 0], latents_std=[1, 2, 0.5, 8])
    try:
        pixels, moments = encode(pipeline.vae)
        generator = torch.Generator().manual_seed(seed)
        wanted = pipeline.prepare_latents(pixels, None, 1, 1, torch.float32, "cpu", generator, add_noise=False)
        source = TorchGenerator(seed)
        assert_close(sample_moments(moments[0].numpy(), source, spec(pipeline.vae)), wanted[0].numpy())
        following = torch.randn(4, 16, 16, generator=generator).numpy()
        assert_close(source.normal((4, 16, 16)), following)
    finally:
        pipeline.vae.register_to_config(**own)


def test_samples_are_the_inpainting_pipelines(pipelines: dict[str, Any]) -> None:
    import torch

    pipeline = pipelines["inpaint"]
    pixels, moments = encode(pipeline.vae, seed=3)
    wanted = pipeline._encode_vae_image(pixels, torch.Generator().manual_seed(3))
    assert_close(sample_moments(moments[0].numpy(), TorchGenerator(3), spec(pipeline.vae)), wanted[0].numpy())


def test_extreme_variances_are_clamped() -> None:
    import torch
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    moments = np.random.default_rng(0).uniform(-60, 60, (1, 8, 9, 7)).astype(np.float32)
    wanted = DiagonalGaussianDistribution(torch.from_numpy(moments)).sample(torch.Generator().manual_seed(1))
    ours = sample_moments(moments[0], TorchGenerator(1), VaeSpec(scaling_factor=1.0, force_upcast=False))
    assert_close(ours, wanted[0].numpy())


def test_previews_are_the_linear_map() -> None:
    latents = np.random.default_rng(0).standard_normal((4, 5, 7)).astype(np.float32)
    for factors in (SDXL_FACTORS, PreviewFactors(weights=((1.0, 0.0, 0.0),) * 4, bias=(0.0, 1.0, -1.0))):
        seen = preview(latents, factors)
        assert (seen.dtype, seen.shape) == (np.uint8, (5, 7, 3))
        for y, x in np.ndindex(5, 7):
            colour = np.array(factors.bias) + latents[:, y, x].astype(np.float64) @ np.array(factors.weights)
            np.testing.assert_allclose(seen[y, x], np.clip(colour * 127.5 + 127.5, 0, 255), atol=0.51)


def test_fitting_finds_an_exact_map() -> None:
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((2, 4, 6, 5)).astype(np.float32)
    weights, bias = np.array(SDXL_FACTORS.weights), np.array(SDXL_FACTORS.bias)
    small = np.einsum("nchw,ck->nkhw", latents, weights) + bias[:, None, None]
    speckle = rng.standard_normal((2, 3, 6, 8, 5, 8))
    speckle -= speckle.mean(axis=(3, 5), keepdims=True)
    images = (small[:, :, :, None, :, None] + speckle).reshape(2, 3, 48, 40).astype(np.float32)
    found = fit_factors(latents, images)
    np.testing.assert_allclose(found.weights, weights, atol=1e-6)
    np.testing.assert_allclose(found.bias, bias, atol=1e-6)


def test_factors_fitted_to_a_chart_show_what_the_decoder_makes(pipelines: dict[str, Any]) -> None:
    """Of the demo's own pictures; the least that any linear map leaves is printed beside it."""
    import torch

    from scripts.demo_model.vae import draw_pictures

    vae = pipelines["image"].vae
    chart = torch.from_numpy(colour_chart((256, 256)))[None]
    pictures = draw_pictures(np.random.default_rng(0), 16, whole=True)[0]
    (chart_latents, chart_image), (latents, images) = (round_trip(vae, each) for each in (chart, pictures))
    wanted = np.stack([to_pixels(image) for image in block_means(images)]).astype(np.float64)
    candidates = {
        "fitted to the chart": fit_factors(chart_latents, chart_image),
        "fitted to these pictures": fit_factors(latents, images),
        "SDXL's": SDXL_FACTORS,
    }
    decibel = {}
    for name, factors in candidates.items():
        shown = np.stack([preview(each, factors) for each in latents])
        decibel[name] = float(10 * np.log10(255**2 / ((shown - wanted) ** 2).mean()))
    print(f"PSNR in dB measured {decibel}, required of the first {PREVIEW_REQUIRED}")
    assert decibel["fitted to the chart"] >= PREVIEW_REQUIRED
    assert decibel["fitted to the chart"] > decibel["SDXL's"] + 3


def round_trip(vae: Any, pixels: Any) -> tuple[np.ndarray, np.ndarray]:
    """(latents as the UNet has them, the decoder's images)."""
    means = vae.encode(pixels).latent_dist.mean
    return means.numpy() * np.float32(vae.config.scaling_factor), vae.decode(means).sample.numpy()


def block_means(images: np.ndarray) -> np.ndarray:
    count, channels, height, width = images.shape
    return images.reshape(count, channels, height // 8, 8, width // 8, 8).mean(axis=(3, 5))


@pytest.mark.parametrize("size", [(256, 256), (40, 104), (8, 8)])
def test_the_chart_is_the_same_every_time(size: tuple[int, int]) -> None:
    chart = colour_chart(size)
    assert (chart.dtype, chart.shape) == (np.float32, (3, size[1], size[0]))
    assert chart.min() >= -1
    assert chart.max() <= 1
    np.testing.assert_array_equal(chart, colour_chart(size))
    np.testing.assert_array_equal(chart[:, :32, :32], np.broadcast_to(chart[:, :1, :1], chart[:, :32, :32].shape))
