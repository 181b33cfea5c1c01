"""Text to pictures: a bundle and a request in, pictures out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.demo_bundle import demo_bundle
from sdxl_trt.errors import RunError, UsageError
from sdxl_trt.progress import Progress, silent
from sdxl_trt.runtime.checks import Pair
from sdxl_trt.runtime.conditioning import Conditioner, Prompt
from sdxl_trt.runtime.device import Device, HostDevice
from sdxl_trt.runtime.guidance import guidances
from sdxl_trt.runtime.images.preview import to_pixels
from sdxl_trt.runtime.loading import Loaded, load
from sdxl_trt.runtime.loop import Loop
from sdxl_trt.runtime.noise import RNGS
from sdxl_trt.runtime.prompts.embeds import Pairs, PromptEmbeds, blend, check_pairs
from sdxl_trt.runtime.prompts.emphasis import OFF, check_weighting
from sdxl_trt.runtime.prompts.inversion import read_inversion
from sdxl_trt.runtime.prompts.layers import check_clip_skip
from sdxl_trt.runtime.request import Request, Resolved
from sdxl_trt.runtime.resolving import check_noise, resolve
from sdxl_trt.runtime.samplers import SamplerOptions, make_table
from sdxl_trt.runtime.slots import SlotRequest
from sdxl_trt.runtime.starts import Starter
from sdxl_trt.runtime.steps import Callback, Teller
from sdxl_trt.runtime.table import Table
from sdxl_trt.runtime.vae import Vae

if TYPE_CHECKING:
    from PIL.Image import Image

OUTPUTS = ("image", "latents")
_NO_OPTIONS = SamplerOptions()


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


class Pipeline:
    """A loaded bundle. Calls from several threads wait for one another."""

    def __init__(self, loaded: Loaded, device: Device) -> None:
        self.model, self.target = loaded.model, loaded.target
        self._device = device
        most = loaded.target.profile.tokens.max
        self._condition = Conditioner(loaded.encoders, device, model=loaded.model, most_tokens=most)
        self._step = loaded.step
        self._vae = Vae(loaded.model.vae, loaded.target.profile, loaded.decoder, loaded.open_encoder, device)
        self._loop: tuple[tuple[int, ...], Loop] | None = None
        self._lock = threading.Lock()

    @classmethod
    def load(cls, bundle: str | Path, *, threads: int | None = None) -> Pipeline:
        """Open a bundle for this host.

        Args:
            bundle: its folder; or 'demo' for the demo model, which is built on first use.
            threads: that one engine may use; as many as this process may run on when not given.

        Raises:
            UsageError: `threads` is not positive.
            NoTargetForHost: nothing in it runs here; says why.
            BundleError: it is damaged, hostile or of an unknown version.
        """
        folder = demo_bundle() if bundle == "demo" else Path(bundle)
        return cls(load(folder, threads=threads), HostDevice())

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
        if output not in OUTPUTS:
            raise UsageError(
                "output cannot be used", got=repr(output), expected=" or ".join(OUTPUTS), fix="output='image'"
            )
        images = len(noise) if isinstance(noise, np.ndarray) and noise.ndim else None
        settings = resolve(request, self.model, self.target.profile, images=images)
        starts = None if noise is None else check_noise(noise, settings)
        with self._lock:
            latents = self._denoise(settings, self._requests(settings, starts), progress, callback)
            pictures = self._pictures(latents, settings, progress) if output == "image" else []
        return Result(images=pictures, latents=latents, seeds=settings.seeds, settings=settings)

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
            encoded = self._condition.encode(prompts, weighting)
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
            self._condition.add(inversion)
        return inversion.name

    def _requests(self, settings: Resolved, starts: NDArray[np.float32] | None) -> list[SlotRequest]:
        """One slot's work for each picture. The table comes first: it may refuse, and costs nothing."""
        table = self._table(settings)
        prompt, negative = self._condition(settings)
        sources = {"from_image": table.initial_image != 0, "from_noise": table.initial_scale != 0}
        starter = Starter(self.model, settings.given, self._vae.moments, **sources)
        requests = []
        for index, seed in enumerate(settings.seeds):
            source = RNGS[settings.rng](seed)
            noise = None if starts is None else starts[index]
            begin = starter.start(index, source, settings.latent_shape, noise)
            requests.append(
                SlotRequest(
                    table=table,
                    noise=begin.noise,
                    source=source,
                    prompt=prompt,
                    negative=negative,
                    guidance=guidances(settings, table.steps, table.evaluations),
                    rescale=settings.guidance_rescale,
                    image=begin.image,
                    mask=begin.mask,
                    extra=begin.extra,
                )
            )
        return requests

    def _table(self, settings: Resolved) -> Table:
        """The sampler as numbers. Inpainting at full strength starts from noise alone, as in diffusers."""
        inpaints = settings.given is not None and settings.given.mask is not None
        return make_table(
            self.model.scheduler,
            settings.steps,
            settings.sampler,
            options=settings.options,
            strength=None if inpaints and settings.strength == 1 else settings.strength,
            denoising_start=settings.denoising_start,
            denoising_end=settings.denoising_end,
        )

    def _denoise(
        self, settings: Resolved, requests: list[SlotRequest], progress: Progress, callback: Callback | None
    ) -> NDArray[np.float32]:
        """Final latents [N, 4, h, w]; a picture joins the loop as soon as there is room."""
        loop = self._loop_for(settings, len(requests), tokens=len(requests[0].prompt.text))
        latents = np.empty((len(requests), *settings.latent_shape), np.float32)
        waiting, running = list(range(len(requests))), dict[int, int]()
        total, done = sum(request.table.evaluations for request in requests), 0
        teller = Teller(callback, loop, self._vae.preview_factors, total=total)
        try:
            while waiting or running:
                while waiting and loop.free:
                    index = waiting.pop(0)
                    running[loop.join(requests[index])] = index
                finished = loop.step()
                done += len(running)
                progress("denoising", done, total)
                teller.tell(running, done)
                for slot in finished:
                    latents[running.pop(slot)] = loop.latents(slot)
                    loop.leave(slot)
        finally:  # after an error or an interrupt the loop is as good as new
            for slot in running:
                loop.leave(slot)
        _check_finite(latents, "denoising", settings)
        return latents

    def _loop_for(self, settings: Resolved, images: int, *, tokens: int) -> Loop:
        """The loop for a size and a number of tokens, kept until another is needed.

        Where shapes are recorded, it always has the same slots.
        """
        most = self.target.profile.slots.max
        slots = most if self._device.captures else min(images, most)
        _, height, width = settings.latent_shape
        key = (slots, height, width, tokens)
        if self._loop is None or self._loop[0] != key:
            loop = Loop(self._step, self._device, slots=slots, height=height, width=width, tokens=tokens)
            self._loop = key, loop
        return self._loop[1]

    def _pictures(self, latents: NDArray[np.float32], settings: Resolved, progress: Progress) -> list[Image]:
        from PIL import Image

        paste = settings.given and settings.given.paste
        pictures = []
        for index, each in enumerate(latents):
            decoded = self._vae.decode(each)
            _check_finite(decoded, "decoding", settings)
            picture = Image.fromarray(to_pixels(decoded))
            pictures.append(paste(picture) if paste else picture)
            progress("decoding", index + 1, len(latents))
        return pictures


def _check_finite(array: NDArray[np.float32], stage: str, settings: Resolved) -> None:
    if not np.isfinite(array).all():
        raise RunError(
            f"{stage} gave NaN or infinity",
            got=f"{np.count_nonzero(~np.isfinite(array))} of {array.size} numbers are not finite",
            expected="finite numbers",
            fix=f"lower guidance ({settings.guidance}); if that does not help, build engines of higher precision",
        )
