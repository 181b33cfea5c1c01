"""Text to pictures: a bundle and a request in, pictures out."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.demo_bundle import bundle_folder
from sdxl_trt.policies import AUTO
from sdxl_trt.progress import Progress, silent
from sdxl_trt.runtime.checks import Pair
from sdxl_trt.runtime.conditioning import Prompt
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.cuda.memory import MemoryUse
from sdxl_trt.runtime.device import Device
from sdxl_trt.runtime.ensemble import asks_for_refiner, base_request, denoise, make_drafts, refiner_settings
from sdxl_trt.runtime.expert import Expert
from sdxl_trt.runtime.host import open_device
from sdxl_trt.runtime.loading import Loaded, load
from sdxl_trt.runtime.maker import Maker, was_closed
from sdxl_trt.runtime.plans import Draft
from sdxl_trt.runtime.prompts.embeds import Pairs, PromptEmbeds, blend, check_pairs
from sdxl_trt.runtime.prompts.emphasis import OFF, check_weighting
from sdxl_trt.runtime.prompts.inversion import read_inversion
from sdxl_trt.runtime.prompts.layers import check_clip_skip
from sdxl_trt.runtime.request import Request
from sdxl_trt.runtime.resolving import check_noise, resolve
from sdxl_trt.runtime.results import Result, check_output, decode
from sdxl_trt.runtime.steps import Callback
from sdxl_trt.runtime.warming import Shape, warm_up

Experts = tuple[Expert, Expert | None]
"""The base model and its refiner."""


class Pipeline(Maker):
    """A loaded bundle on one device.

    Args:
        loaded: the bundle.
        device: that it was loaded for; closed with the pipeline.
    """

    def __init__(self, loaded: Loaded, device: Device) -> None:
        self.model, self.target = loaded.model, loaded.target
        self.memory = loaded.memory
        self.refiner = loaded.refiner.model if loaded.refiner else None
        base = Expert(loaded, device)
        refiner = Expert(loaded.refiner, device, base) if loaded.refiner else None
        self._experts: Experts | None = (base, refiner)
        self._device = device
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        bundle: str | Path,
        *,
        device: str = "cpu",
        threads: int | None = None,
        refiner: bool = True,
        memory: str = AUTO,
    ) -> Pipeline:
        """Open a bundle for this host.

        Args:
            bundle: its folder; or 'demo', 'demo-turbo' or 'demo-refiner', which are built on first use.
            device: 'cpu', 'cuda' or 'cuda:1'.
            threads: that one engine may use on the processor; as many as this process may run on when not given.
            refiner: open the bundle's refiner too, where there is one.
            memory: 'resident': all engines stay open; 'swap': one is open at a time, the files of the others in the
                system's cache; 'stream': so too, and the UNet's weights pass through what memory is left; 'auto': the
                first of these that fits the GPU's free memory, by estimate. What was taken is in `memory`.

        Raises:
            UsageError: `threads` is not positive; there is no such kind of device or such a policy, or these engines
                cannot do it.
            NoTargetForHost: nothing in it runs here; says why.
            BundleError: it is damaged, hostile or of an unknown version.
            FlavourUnavailable: the GPU, or a library that the engines need on it, is missing.
            OutOfMemory: the GPU has too little memory, or by all estimates will have.
        """
        folder = bundle_folder(bundle)
        opened = open_device(device)
        try:
            return cls(load(folder, threads=threads, refiner=refiner, device=opened, memory=memory), opened)
        except BaseException:
            opened.close()
            raise

    def run(
        self,
        request: Request,
        *,
        noise: NDArray[Any] | None = None,
        output: str = "image",
        progress: Progress = silent,
        callback: Callback | None = None,
    ) -> Result:
        """Make the pictures of a request; see `Maker.run`."""
        check_output(output, request.denoising_end)
        images = len(noise) if isinstance(noise, np.ndarray) and noise.ndim else None
        drafts = self.draft(request, images)
        settings = drafts[0].settings
        starts = None if noise is None else check_noise(noise, settings)
        with self._turn():
            plans = [draft.encode() for draft in drafts]
            latents = denoise(plans, starts, progress, callback)
            pictures = decode(plans[-1].expert.vae, latents, plans[-1].settings, progress) if output == "image" else []
        return Result(
            images=pictures,
            latents=latents,
            seeds=settings.seeds,
            settings=settings,
            refiner=plans[1].settings if len(plans) > 1 else None,
        )

    def draft(self, request: Request, images: int | None = None) -> list[Draft]:
        """What each model, the base and the refiner where it has a part, is to do for a request; runs no engine.

        Args:
            request: what is asked for.
            images: how many there must be, where something else than the seeds says so.

        Raises:
            UsageError, SchedulerError: as of `run`.
        """
        base, refiner = self._opened()
        refined = asks_for_refiner(request, base, refiner)
        asked = base_request(request) if refined else request
        settings = resolve(asked, self.model, self.target.profile, images=images)
        if not refined or refiner is None:
            return [Draft.make(base, settings, base.table(settings))]
        return make_drafts((base, refiner), settings, refiner_settings(request, settings, base, refiner))

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
        with self._turn() as (base, _):
            encoded = base.condition.encode(prompts, weighting)
        return blend(encoded, [weight for _, weight in pairs])

    def load_textual_inversion(self, path: str | Path, token: str | None = None) -> str:
        """Read a learned word; see `Maker.load_textual_inversion`."""
        inversion = read_inversion(Path(path), self.model.text_encoders, token)
        with self._turn() as experts:
            for expert in experts:
                if expert:
                    expert.condition.add(inversion)
        return inversion.name

    def warm_up(
        self, sizes: Iterable[Pair], batches: Iterable[int] = (1,), *, chunks: Iterable[int] = (1,)
    ) -> dict[Shape, float]:
        """Prepare what requests of these shapes need; see `Maker.warm_up`."""
        with self._turn() as experts:
            return warm_up([expert for expert in experts if expert], sizes, batches, chunks)

    def close(self) -> None:
        """Release engines, memory and the device; see `Maker.close`."""
        with self._lock:
            self._experts = None  # the engines, before the device that they are on
            self._device.close()

    @property
    def captures(self) -> bool:
        """Its device records steps, and is for one thread at a time."""
        return self._device.captures

    def device_memory(self) -> MemoryUse | None:
        """What is allocated and free on its GPU; None on the processor.

        Raises:
            GpuLost: it failed, or this was closed.
        """
        return self._device.memory() if isinstance(self._device, CudaDevice) else None

    @property
    def experts(self) -> list[Expert]:
        """The base model, and its refiner where there is one. For who steps them; not beside calls of this pipeline.

        Raises:
            UsageError: this was closed.
        """
        return [expert for expert in self._opened() if expert]

    def _opened(self) -> Experts:
        if self._experts is None:
            raise was_closed(Pipeline)
        return self._experts

    @contextmanager
    def _turn(self) -> Iterator[Experts]:
        """The caller's turn."""
        with self._lock:
            yield self._opened()
