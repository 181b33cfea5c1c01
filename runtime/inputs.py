"""What a picture is made from, where that is not text alone: a picture or latents, and a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import UsageError
from sdxl_trt.spec import LATENT_SCALE, Profile
from sdxl_trt.spec.graphs import LATENT_CHANNELS

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdxl_trt.runtime.request import Request

Pair = tuple[int, int]

STRENGTH = 0.3
"""Of image-to-image where none is given, as diffusers' StableDiffusionXLImg2ImgPipeline."""
INPAINTING_STRENGTH = 0.9999
"""Of inpainting, as diffusers' StableDiffusionXLInpaintPipeline: all steps but one start from the picture's noise."""
_MOST_BLUR = 1000.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Input:
    """A picture to start from, ready for the VAE; or latents."""

    pixels: NDArray[np.float32] | None = None
    """[3, H, W], −1 to 1."""
    latents: NDArray[np.float32] | None = None
    """[N, 4, h, w] as the UNet has them (scaled), instead of pixels; N is 1 or the number of pictures."""
    mask: NDArray[np.float32] | None = None
    """[1, h, w]: 1 is painted anew."""
    masked_pixels: NDArray[np.float32] | None = None
    """[3, H, W]: `pixels` where the mask keeps them, grey elsewhere."""
    paste: Callable[[Image], Image] | None = None
    """Puts a result back into the picture that it is a part of."""


def read_input(request: Request, default: Pair, profile: Profile) -> tuple[Input | None, Pair]:
    """What a request starts from, and the size (width, height) of its pictures.

    The size is the one asked for; else the input's own, rounded down to multiples of 8, as in diffusers; but the
    model's where only the surroundings of a mask are worked on.

    Args:
        request: its image, mask and size.
        default: the size of pictures that start from nothing.
        profile: gives the sizes that the engines take.

    Raises:
        ImageError: a picture or mask that cannot be used.
        UsageError: options that do not go together or are out of range; latents of a wrong shape.
        UnsupportedSize: the engines do not take the size.
    """
    if request.image is None:
        _refuse_lone(request)
        return None, _checked_size(request.size or default, profile)
    if are_latents(request.image):
        latents = _latents(request)
        return Input(latents=latents), _checked_size((latents.shape[3] * 8, latents.shape[2] * 8), profile)
    from sdxl_trt.runtime.images.opening import open_image
    from sdxl_trt.runtime.images.resizing import default_size, preprocess

    image = open_image(request.image)
    own = default if request.mask is not None and request.mask_padding is not None else default_size(image)
    size = _checked_size(request.size or own, profile)
    if request.mask is None:
        _refuse_lone(request)
        return Input(pixels=preprocess(image, size)), size
    return _inpainting(request, image, size), size


def _inpainting(request: Request, image: Image, size: Pair) -> Input:
    from sdxl_trt.runtime.images.inpainting import prepare_inpainting
    from sdxl_trt.runtime.images.masks import edit_mask
    from sdxl_trt.runtime.images.opening import open_mask

    blur, padding = request.mask_blur, request.mask_padding
    if isinstance(blur, bool) or not isinstance(blur, int | float) or not 0 <= blur <= _MOST_BLUR:
        raise UsageError(
            "mask_blur cannot be used", got=f"{blur!r:.80}", expected="0 to 1000 pixels", fix="mask_blur=8"
        )
    if padding is not None and (type(padding) is not int or padding < 0):
        raise UsageError(
            "mask_padding cannot be used",
            got=f"{padding!r:.80}",
            expected="pixels around the mask, an integer of at least 0",
            fix="mask_padding=32",
        )
    mask = edit_mask(open_mask(request.mask), invert=request.mask_invert, blur=float(blur))
    ready = prepare_inpainting(image, mask, size, padding=padding, soft=request.mask_soft)
    return Input(
        pixels=ready.pixels,
        mask=ready.mask,
        masked_pixels=ready.masked_pixels,
        paste=None if padding is None else ready.paste,
    )


def _refuse_lone(request: Request) -> None:
    """Refuse what only means something together with an image, or with a mask."""
    lacking, names = "mask", ["mask_blur", "mask_invert", "mask_soft", "mask_padding"]
    if request.image is None:
        lacking, names = "image", ["mask", "strength", "denoising_start"]
    for name in names:
        if getattr(request, name) not in (None, 0, False):
            raise UsageError(
                f"{name} needs {lacking}",
                got="none",
                expected=f"{lacking} too",
                fix=f"{lacking}=…, or leave {name} out",
            )


def are_latents(image: object) -> bool:
    """What is started from is latents, and not a picture."""
    return isinstance(image, np.ndarray) and image.dtype.kind == "f"


def _latents(request: Request) -> NDArray[np.float32]:
    """A caller's latents as [N, 4, h, w]."""
    given: NDArray[Any] = request.image
    array = np.asarray(given, np.float32)
    array = array[None] if array.ndim == 3 else array
    if request.mask is not None or array.ndim != 4 or array.shape[1] != LATENT_CHANNELS or not np.isfinite(array).all():
        raise UsageError(
            "these latents cannot be used",
            got=f"{given.dtype} {list(given.shape)}" + (" with a mask" if request.mask is not None else ""),
            expected=f"finite floats [N, {LATENT_CHANNELS}, height / {LATENT_SCALE}, width / {LATENT_SCALE}], no mask",
            fix="image=result.latents; a picture as an array has uint8 [H, W, 3]",
        )
    size = (array.shape[3] * LATENT_SCALE, array.shape[2] * LATENT_SCALE)
    if request.size not in (None, size):
        raise UsageError(
            "size is not that of the latents", got=f"{request.size}", expected=f"{size}", fix="leave size out"
        )
    return np.ascontiguousarray(array)


def _checked_size(size: Pair, profile: Profile) -> Pair:
    profile.check_size(size)
    return size
