"""What makes pictures, on one device or on several: one way to ask for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from sdxl_trt.bundle import Target
from sdxl_trt.errors import UsageError
from sdxl_trt.progress import Progress, silent
from sdxl_trt.runtime.checks import Pair
from sdxl_trt.runtime.policy import Policy
from sdxl_trt.runtime.prompts.embeds import PromptEmbeds
from sdxl_trt.runtime.prompts.emphasis import OFF
from sdxl_trt.runtime.request import Request
from sdxl_trt.runtime.results import Result
from sdxl_trt.runtime.samplers import SamplerOptions
from sdxl_trt.runtime.steps import Callback
from sdxl_trt.runtime.warming import Shape
from sdxl_trt.spec import ModelSpec

_NO_OPTIONS = SamplerOptions()


class Maker(ABC):
    """An opened bundle. Calls from several threads wait for one another; `with` closes it at the end of a block."""

    model: ModelSpec
    """Of the bundle."""
    target: Target
    """What runs of it here."""
    memory: Policy
    """Where weights are while others are needed; on several devices, on the first of them."""
    refiner: ModelSpec | None
    """The bundle's second model, where there is one and it was opened."""

    @abstractmethod
    def run(
        self,
        request: Request,
        *,
        noise: NDArray[Any] | None = None,
        output: str = "image",
        progress: Progress = silent,
        callback: Callback | None = None,
    ) -> Result:
        """Make the pictures of a request.

        Args:
            request: what is asked for.
            noise: float32 [N, 4, h, w] of unit variance to start from, instead of what the seeds give.
            output: 'image', or 'latents' to leave out decoding.
            progress: told of every denoising step of every picture, and of every picture decoded.
            callback: called after every step of every picture, with its latents and a preview at hand.

        Raises:
            UsageError: a setting that cannot be used, and nothing was started; or this was closed.
            SchedulerError: the checkpoint's scheduler has no table.
            RunError: an engine failed, or gave NaN or infinity.
        """

    @abstractmethod
    def warm_up(
        self, sizes: Iterable[Pair], batches: Iterable[int] = (1,), *, chunks: Iterable[int] = (1,)
    ) -> dict[Shape, float]:
        """Prepare every loop, text encoder and VAE for these shapes, so that no later request of them waits for it.

        Each is bound, compiled, recorded and run once, guided and not, and stays prepared until `close`: shapes that
        are warmed up do not count among the few that are kept otherwise. What they take of memory is the limit.
        Where engines are swapped, they stay only until another engine is needed; what was compiled is kept in files.

        Args:
            sizes: (width, height) in pixels.
            batches: pictures in a request; each is prepared at each size.
            chunks: lengths of prompts, in parts of 75 words or signs (77 tokens).

        Returns:
            Seconds that each size and batch took; what all shapes share counts with the first.

        Raises:
            UsageError: a size, number or length that the engines do not take.
            OutOfMemory: there is too little memory for so many; those before it are ready.
            RunError: an engine failed.
        """

    @abstractmethod
    def load_textual_inversion(self, path: str | Path, token: str | None = None) -> str:
        """Read a learned word (.safetensors) for the prompts of all later calls; its vectors need no other engines.

        Args:
            path: the file; see `sdxl_trt.runtime.prompts.inversion` for what may be in it.
            token: the word; what the file calls it, or else its file name, when not given.

        Returns:
            The word.

        Raises:
            UsageError: the file cannot be read, is for other text encoders, or the word means something already.
        """

    @abstractmethod
    def close(self) -> None:
        """Release engines, memory and devices, once the call that is under way is done.

        Results stay as they are; calls from now on are refused. Closing again does nothing.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(
        self,
        prompt: str | None = None,
        *,
        prompt_2: str | None = None,
        negative_prompt: str | None = None,
        negative_prompt_2: str | None = None,
        prompt_embeds: PromptEmbeds | None = None,
        negative_prompt_embeds: PromptEmbeds | None = None,
        weighting: str = OFF,
        clip_skip: int | None = None,
        steps: int | None = None,
        guidance: float | Sequence[float] | None = None,
        guidance_end: float = 1.0,
        guidance_rescale: float = 0.0,
        seed: int | Sequence[int] | None = None,
        size: Pair | None = None,
        sampler: str | None = None,
        options: SamplerOptions = _NO_OPTIONS,
        rng: str = "cpu",
        image: Any = None,
        mask: Any = None,
        strength: float | None = None,
        denoising_start: float | None = None,
        denoising_end: float | None = None,
        mask_blur: float = 0.0,
        mask_invert: bool = False,
        mask_soft: bool = False,
        mask_padding: int | None = None,
        vae_tiling: str = "auto",
        vae_tile: int | None = None,
        original_size: Pair | None = None,
        target_size: Pair | None = None,
        crop_top_left: Pair = (0, 0),
        negative_original_size: Pair | None = None,
        negative_target_size: Pair | None = None,
        negative_crop_top_left: Pair = (0, 0),
        aesthetic_score: float = 6.0,
        negative_aesthetic_score: float = 2.5,
        refiner_start: float | None = None,
        refiner_strength: float | None = None,
        refiner_steps: int | None = None,
        refiner_guidance: float | None = None,
        refiner_sampler: str | None = None,
        refiner_options: SamplerOptions = _NO_OPTIONS,
        noise: NDArray[Any] | None = None,
        output: str = "image",
        progress: Progress = silent,
        callback: Callback | None = None,
    ) -> Result:
        """Make pictures; see `Request` for the settings and `run` for the rest."""
        request = Request(
            prompt=prompt,
            prompt_2=prompt_2,
            negative_prompt=negative_prompt,
            negative_prompt_2=negative_prompt_2,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            weighting=weighting,
            clip_skip=clip_skip,
            steps=steps,
            guidance=guidance,
            guidance_end=guidance_end,
            guidance_rescale=guidance_rescale,
            seed=seed,
            size=size,
            sampler=sampler,
            options=options,
            rng=rng,
            image=image,
            mask=mask,
            strength=strength,
            denoising_start=denoising_start,
            denoising_end=denoising_end,
            mask_blur=mask_blur,
            mask_invert=mask_invert,
            mask_soft=mask_soft,
            mask_padding=mask_padding,
            vae_tiling=vae_tiling,
            vae_tile=vae_tile,
            original_size=original_size,
            target_size=target_size,
            crop_top_left=crop_top_left,
            negative_original_size=negative_original_size,
            negative_target_size=negative_target_size,
            negative_crop_top_left=negative_crop_top_left,
            aesthetic_score=aesthetic_score,
            negative_aesthetic_score=negative_aesthetic_score,
            refiner_start=refiner_start,
            refiner_strength=refiner_strength,
            refiner_steps=refiner_steps,
            refiner_guidance=refiner_guidance,
            refiner_sampler=refiner_sampler,
            refiner_options=refiner_options,
        )
        return self.run(request, noise=noise, output=output, progress=progress, callback=callback)


def was_closed(what: type[Maker]) -> UsageError:
    """The error for a call after `close`."""
    name = what.__name__
    return UsageError(
        f"this {name} was closed", got="a call after close()", expected="calls before it", fix=f"{name}.load(…) again"
    )
