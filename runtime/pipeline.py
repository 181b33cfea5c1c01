"""Text to pictures: a bundle and a request in, pictures out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.demo_bundle import demo_bundle
from sdxl_trt.progress import Progress, silent
from sdxl_trt.runtime.checks import Pair
from sdxl_trt.runtime.conditioning import Prompt
from sdxl_trt.runtime.device import Device
from sdxl_trt.runtime.ensemble import asks_for_refiner, base_request, denoise, make_plans, refiner_settings
from sdxl_trt.runtime.expert import Expert
from sdxl_trt.runtime.host import open_device
from sdxl_trt.runtime.loading import Loaded, load
from sdxl_trt.runtime.plans import Plan, make_plan
from sdxl_trt.runtime.prompts.embeds import Pairs, PromptEmbeds, blend, check_pairs
from sdxl_trt.runtime.prompts.emphasis import OFF, check_weighting
from sdxl_trt.runtime.prompts.inversion import read_inversion
from sdxl_trt.runtime.prompts.layers import check_clip_skip
from sdxl_trt.runtime.request import Request, Resolved
from sdxl_trt.runtime.resolving import check_noise, resolve
from sdxl_trt.runtime.results import Result, check_output, decode
from sdxl_trt.runtime.samplers import SamplerOptions
from sdxl_trt.runtime.steps import Callback

_NO_OPTIONS = SamplerOptions()


class Pipeline:
    """A loaded bundle. Calls from several threads wait for one another."""

    def __init__(self, loaded: Loaded, device: Device) -> None:
        self.model, self.target = loaded.model, loaded.target
        self._base = Expert(loaded, device)
        self._refiner = Expert(loaded.refiner, device, self._base) if loaded.refiner else None
        self.refiner = loaded.refiner.model if loaded.refiner else None
        self._experts = [expert for expert in (self._base, self._refiner) if expert]
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls, bundle: str | Path, *, device: str = "cpu", threads: int | None = None, refiner: bool = True
    ) -> Pipeline:
        """Open a bundle for this host.

        Args:
            bundle: its folder; or 'demo' for the demo model, which is built on first use.
            device: 'cpu', 'cuda' or 'cuda:1'.
            threads: that one engine may use on the processor; as many as this process may run on when not given.
            refiner: open the bundle's refiner too, where there is one.

        Raises:
            UsageError: `threads` is not positive, or there is no such kind of device.
            NoTargetForHost: nothing in it runs here; says why.
            BundleError: it is damaged, hostile or of an unknown version.
            FlavourUnavailable: the GPU, or a library that the engines need on it, is missing.
            OutOfMemory: the GPU has too little memory.
        """
        folder = demo_bundle() if bundle == "demo" else Path(bundle)
        opened = open_device(device)
        return cls(load(folder, threads=threads, refiner=refiner, device=opened), opened)

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
            UsageError: a setting that cannot be used; nothing was started.
            SchedulerError: the checkpoint's scheduler has no table.
            RunError: an engine failed, or gave NaN or infinity.
        """
        check_output(output, request.denoising_end)
        refined = asks_for_refiner(request, self._base, self._refiner)
        images = len(noise) if isinstance(noise, np.ndarray) and noise.ndim else None
        settings = resolve(
            base_request(request) if refined else request, self.model, self.target.profile, images=images
        )
        starts = None if noise is None else check_noise(noise, settings)
        with self._lock:
            plans = self._plans(request, settings, refined=refined)
            latents = denoise(plans, starts, progress, callback)
            pictures = decode(plans[-1].expert.vae, latents, plans[-1].settings, progress) if output == "image" else []
        return Result(
            images=pictures,
            latents=latents,
            seeds=settings.seeds,
            settings=settings,
            refiner=plans[1].settings if refined else None,
        )

    def encode(
        self, prompt: str | Pairs, *, prompt_2: str | None = None, weighting: str = OFF, clip_skip: int | None = None
    ) -> PromptEmbeds:
        """Encode a prompt, or several into one, to be given as prompt_embeds or negative_prompt_embeds.

        Args:
            prompt: text; or texts and how much of each goes into the blend: [("a cat", 0.7), ("a dog", 0.3)].
            prompt_2: for the second text encoder, of every text; the prompt where not given or empty.
            weighting, clip_skip: as in `Request`; give clip_skip for a negative prompt too where it shall have it.

        Raises:
            UsageError: a setting that cannot be used.
            PromptTooLong: more tokens than the engines take.
            RunError: an engine failed.
        """
        pairs = check_pairs(prompt)
        skipped, weighting = check_clip_skip(clip_skip, self.model), check_weighting(weighting)
        prompts = [Prompt(texts=(text, prompt_2 or text), clip_skip=skipped) for text, _ in pairs]
        with self._lock:
            encoded = self._base.condition.encode(prompts, weighting)
        return blend(encoded, [weight for _, weight in pairs])

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
        inversion = read_inversion(Path(path), self.model.text_encoders, token)
        with self._lock:
            for expert in self._experts:
                expert.condition.add(inversion)
        return inversion.name

    def _plans(self, request: Request, settings: Resolved, *, refined: bool) -> list[Plan]:
        """What each model is to do. The tables come first: they may refuse, and cost nothing."""
        if not refined or self._refiner is None:
            return [make_plan(self._base, settings, self._base.table(settings))]
        experts = self._base, self._refiner
        return make_plans(experts, settings, refiner_settings(request, settings, *experts))
