"""From the VAE's encoder to the latents that a UNet denoises."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.slots import NoiseSource
from sdxl_trt.spec import VaeSpec


def sample_moments(moments: NDArray[np.float32], source: NoiseSource, vae: VaeSpec) -> NDArray[np.float32]:
    """One sample of a picture's latents, scaled for the UNet.

    As diffusers 0.42: DiagonalGaussianDistribution.sample, then the scaling of the image-to-image pipeline's
    prepare_latents. (The inpainting pipeline forgets latents_mean and latents_std when it encodes; this does not.)

    Args:
        moments: [8, h, w] of one picture: means, then logarithms of variances, as the `vae_encoder` graph gives them.
        source: one draw of [4, h, w] is taken from it.
        vae: the scales.

    Returns:
        float32 [4, h, w].
    """
    mean, log_variance = np.split(moments, 2)
    deviation = np.exp(np.float32(0.5) * np.clip(log_variance, -30, 20))
    return scale_latents(mean + deviation * source.normal(mean.shape), vae)


def scale_latents(latents: NDArray[np.float32], vae: VaeSpec) -> NDArray[np.float32]:
    """The VAE's latents [4, h, w] as the UNet has them."""
    scale = np.float32(vae.scaling_factor)
    if not (vae.latents_mean and vae.latents_std):
        return latents * scale
    centre, spread = (np.array(values, np.float32)[:, None, None] for values in (vae.latents_mean, vae.latents_std))
    return (latents - centre) * scale / spread
