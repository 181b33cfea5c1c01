"""What a caller asks for, and what that comes to for a model once nothing is left open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.checks import Pair
from sdxl_trt.runtime.inputs import Input
from sdxl_trt.runtime.prompts.embeds import PromptEmbeds
from sdxl_trt.runtime.prompts.emphasis import OFF
from sdxl_trt.runtime.samplers import SamplerOptions
from sdxl_trt.spec import LATENT_SCALE

_NO_OPTIONS = SamplerOptions()


@dataclass(frozen=True, kw_only=True)
class Request:
    """Pictures as they are asked for; None where the caller leaves a choice to the model.

    Names follow diffusers, but sizes are (width, height) in pixels, where diffusers has (height, width).
    """

    prompt: str | None = None
    """Needed unless prompt_embeds are given."""
    prompt_2: str | None = None
    """For the second text encoder; the prompt where not given or empty."""
    negative_prompt: str | None = None
    """None is not the same as empty text: most models then take zeros (ModelSpec.zero_negative)."""
    negative_prompt_2: str | None = None
    """For the second text encoder; the negative prompt where not given or empty. Ignored where that gives zeros."""
    prompt_embeds: PromptEmbeds | None = None
    """Instead of prompt and prompt_2."""
    negative_prompt_embeds: PromptEmbeds | None = None
    """Instead of negative_prompt and negative_prompt_2."""
    weighting: str = OFF
    """How brackets weight words (`sdxl_trt.runtime.prompts.emphasis.WEIGHTINGS`); 'a1111' for A1111's syntax.

    Off here, so that every prompt gives what it gives in diffusers, which reads `(` as text and is what Python programs
    come from. On in `sdxl-trt run`, whose prompts people type, and paste from pictures that A1111 made.
    """
    clip_skip: int | None = None
    """Further layers of the text encoders to leave out, as diffusers counts and, as there, for the prompt alone."""
    steps: int | None = None
    guidance: float | Sequence[float] | None = None
    """How far to go from the negative prompt's output to the prompt's and beyond; 1 and below: guidance is off, and a
    step costs half. One number, or one for each step that is done."""
    guidance_end: float = 1.0
    """0 to 1: guidance is off after this part of the steps that are done."""
    guidance_rescale: float = 0.0
    """0 to 1 (arXiv 2305.08891, section 3.4)."""
    seed: int | Sequence[int] | None = None
    """One picture for each; None: one, of a seed chosen at random."""
    size: Pair | None = None
    sampler: str | None = None
    """None: the scheduler that came with the checkpoint, or that its kind of model is run with."""
    options: SamplerOptions = _NO_OPTIONS
    """Of the sampler, over what the checkpoint says."""
    rng: str = "cpu"
    """Which of torch's generators seeds are for: 'cpu', or 'cuda' for pictures that were made with one there."""
    image: Any = None
    """A start: a pathlib.Path, a file's bytes, a Pillow image or uint8 [H, W, 3]; or latents, float [N, 4, h, w]."""
    mask: Any = None
    """For inpainting: white is painted anew, black is kept. As `image`, of its size."""
    strength: float | None = None
    """0 to 1: how much of the steps a picture made from `image` goes through. None: 0.3, and 0.9999 with a mask."""
    denoising_start: float | None = None
    """0 to 1: go on from latents that another run left at this part of training's timesteps (its denoising_end)."""
    denoising_end: float | None = None
    """0 to 1: stop there; latents then are still noisy."""
    mask_blur: float = 0.0
    """Standard deviation in pixels."""
    mask_invert: bool = False
    mask_soft: bool = False
    """Grey keeps in part. Else the mask is cut at the middle, as diffusers does."""
    mask_padding: int | None = None
    """Work on the mask and so many pixels round it alone, at the full size; the result is put back into the picture."""
    vae_tiling: str = "auto"
    """'auto': the VAE has pictures in tiles where its engines do not take them whole; 'on': wherever they are larger
    than a tile; 'off': never. On the processor tiles take less memory; TensorRT's engines always have what the largest
    shape takes that they were built for, so that there it is `sdxl-trt build --vae-tile` that saves it."""
    vae_tile: int | None = None
    """Edge of tiles in pixels, a multiple of 32; None: the size that the VAE was trained on, or the largest its engines
    take."""
    original_size: Pair | None = None
    target_size: Pair | None = None
    crop_top_left: Pair = (0, 0)
    """(top, left)."""
    negative_original_size: Pair | None = None
    """Used where negative_target_size is given too; else the negative prompt has the prompt's sizes and crop."""
    negative_target_size: Pair | None = None
    negative_crop_top_left: Pair = (0, 0)
    aesthetic_score: float = 6.0
    """0 to 10, what a refiner is told in place of the target size; other models are not."""
    negative_aesthetic_score: float = 2.5
    """The same with the negative prompt."""
    refiner_start: float | None = None
    """0 to 1: the bundle's refiner takes over at this part of training's timesteps, 0.8 for example (diffusers'
    denoising_end of the base and denoising_start of the refiner)."""
    refiner_strength: float | None = None
    """0 to 1: instead, the refiner changes the finished picture by this much, as image-to-image does."""
    refiner_steps: int | None = None
    """Of a whole run of the refiner, of which it does its part; None: the base's."""
    refiner_guidance: float | None = None
    """None: the base's, its last where it has several."""
    refiner_sampler: str | None = None
    """None: `sampler` and `options` hold for it too; the one that came with its checkpoint where they name none."""
    refiner_options: SamplerOptions = _NO_OPTIONS
    """Of the refiner's sampler."""


@dataclass(frozen=True, kw_only=True)
class MicroConditions:
    """SDXL's size and crop conditioning (arXiv 2307.01952, section 2.2)."""

    original_size: Pair
    crop_top_left: Pair
    target_size: Pair
    aesthetic_score: float | None = None
    """A refiner's, in place of the target size (section 2.5)."""

    def time_ids(self) -> NDArray[np.float32]:
        """[6]: original height, width, crop top, left, target height, width; a refiner's [5] end with the score."""
        last = self.target_size[::-1] if self.aesthetic_score is None else (self.aesthetic_score,)
        return np.array([*self.original_size[::-1], *self.crop_top_left, *last], np.float32)


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A request with nothing left open: it makes the same pictures wherever it runs."""

    prompt: str
    prompt_2: str
    negative_prompt: str | None
    negative_prompt_2: str | None
    prompt_embeds: PromptEmbeds | None
    negative_prompt_embeds: PromptEmbeds | None
    weighting: str
    clip_skip: int
    steps: int
    guidance: float | tuple[float, ...]
    guidance_end: float
    guidance_rescale: float
    seeds: tuple[int, ...]
    size: Pair
    sampler: str | None
    options: SamplerOptions
    rng: str
    given: Input | None
    """What is started from."""
    strength: float | None
    denoising_start: float | None
    denoising_end: float | None
    vae_tile: int | None
    """Edge of the VAE's tiles in pixels; None: it has pictures whole."""
    micro: MicroConditions
    negative_micro: MicroConditions
    guidance_embedded: bool
    """The UNet is told the guidance, and evaluated once for each step."""

    @property
    def guided(self) -> bool:
        """Guidance needs a second evaluation."""
        most = max(self.guidance) if isinstance(self.guidance, tuple) else self.guidance
        return most > 1 and not self.guidance_embedded

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """[4, h, w] of one picture."""
        width, height = self.size
        return 4, height // LATENT_SCALE, width // LATENT_SCALE
