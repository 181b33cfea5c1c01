"""What a request gives: latents, and the pictures that the VAE makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import RunError, UsageError
from sdxl_trt.progress import Progress
from sdxl_trt.runtime.images.preview import to_pixels
from sdxl_trt.runtime.request import Resolved
from sdxl_trt.runtime.vae import Vae

if TYPE_CHECKING:
    from PIL.Image import Image

OUTPUTS = ("image", "latents")


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What a request gave, in the order of its seeds."""

    images: list[Image]
    """RGB; empty where latents were asked for."""
    latents: NDArray[np.float32]
    """[N, 4, h, w] as the UNet has them (scaled): what the VAE's decoder was given."""
    seeds: tuple[int, ...]
    settings: Resolved
    """Makes the same pictures again."""
    refiner: Resolved | None = None
    """The settings of the refiner, where one went on."""


def check_output(output: object, denoising_end: object) -> None:
    """Refuse an unknown kind of result, or a picture of what is still noise.

    Raises:
        UsageError: one of these.
    """
    if output not in OUTPUTS:
        raise UsageError("output cannot be used", got=repr(output), expected=" or ".join(OUTPUTS), fix="output='image'")
    if output == "image" and denoising_end not in (None, 1):
        raise UsageError(
            "denoising_end leaves no picture but noisy latents",
            got=f"denoising_end={denoising_end!r:.80} with output='image'",
            expected="output='latents', for another pipeline to go on with; or a refiner that takes over",
            fix=f"refiner_start={denoising_end!r:.80} in place of denoising_end",
        )


def decode(vae: Vae, latents: NDArray[np.float32], settings: Resolved, progress: Progress) -> list[Image]:
    """Pictures of latents [N, 4, h, w]; put back into the picture that they are a part of, where there is one.

    Raises:
        RunError: the engine failed, or gave NaN or infinity.
    """
    from PIL import Image

    paste = settings.given and settings.given.paste
    pictures = []
    for index, each in enumerate(latents):
        decoded = vae.decode(each, settings.vae_tile)
        check_finite(decoded, "decoding", settings)
        picture = Image.fromarray(to_pixels(decoded))
        pictures.append(paste(picture) if paste else picture)
        progress("decoding", index + 1, len(latents))
    return pictures


def check_finite(array: NDArray[np.float32], stage: str, settings: Resolved) -> None:
    """Refuse a result that is no picture.

    Raises:
        RunError: NaN or infinity in it.
    """
    if not np.isfinite(array).all():
        raise RunError(
            f"{stage} gave NaN or infinity",
            got=f"{np.count_nonzero(~np.isfinite(array))} of {array.size} numbers are not finite",
            expected="finite numbers",
            fix=f"lower guidance ({settings.guidance}); if that does not help, build engines of higher precision",
        )
