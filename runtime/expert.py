"""A model that is ready to denoise: the base model of a pipeline, or its refiner."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.conditioning import Conditioner
from sdxl_trt.runtime.device import Device
from sdxl_trt.runtime.loading import Loaded
from sdxl_trt.runtime.loop import Loop
from sdxl_trt.runtime.recent import Recent
from sdxl_trt.runtime.request import Resolved
from sdxl_trt.runtime.samplers import make_table
from sdxl_trt.runtime.slots import SlotRequest
from sdxl_trt.runtime.steps import Teller
from sdxl_trt.runtime.table import Table
from sdxl_trt.runtime.vae import Vae

LOOPS = 4
"""Sizes whose steps stay recorded; each has a graph for every number of rows, in powers of two."""


class Expert:
    """One model of a bundle on its device.

    Args:
        loaded: the model.
        device: where it runs.
        other: of the same bundle; what is the same object in both has its buffers once, and learned words.
    """

    def __init__(self, loaded: Loaded, device: Device, other: Expert | None = None) -> None:
        self.loaded, self.model, self._device = loaded, loaded.model, device
        self.profile = loaded.target.profile
        self.condition: Conditioner = Conditioner(
            loaded.encoders,
            device,
            model=loaded.model,
            most_tokens=self.profile.tokens.max,
            other=other.condition if other else None,
        )
        self.vae: Vae = (
            other.vae
            if other and other.loaded.decoder is loaded.decoder
            else Vae(loaded.model.vae, self.profile, loaded.decoder, loaded.open_encoder, device)
        )
        self._loops = Recent[tuple[int, ...], Loop](LOOPS if device.captures else 1)

    def table(self, settings: Resolved) -> Table:
        """The sampler as numbers. Inpainting at full strength starts from noise alone, as in diffusers.

        Raises:
            SchedulerError: the checkpoint's scheduler has no table.
            UsageError: a setting that the sampler cannot do.
        """
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

    def denoise(self, requests: Sequence[SlotRequest], teller: Teller) -> NDArray[np.float32]:
        """Final latents [N, 4, h, w]; a picture joins the loop as soon as there is room.

        Raises:
            RunError: the engine failed.
        """
        loop = self._loop_for(len(requests), requests[0])
        latents = np.empty((len(requests), *requests[0].noise.shape), np.float32)
        waiting, running = list(range(len(requests))), dict[int, int]()
        try:
            while waiting or running:
                while waiting and loop.free:
                    index = waiting.pop(0)
                    running[loop.join(requests[index])] = index
                finished = loop.step()
                teller.tell(loop, running, self.vae.preview_factors)
                for slot in finished:
                    latents[running.pop(slot)] = loop.latents(slot)
                    loop.leave(slot)
        finally:  # after an error or an interrupt the loop is as good as new
            for slot in running:
                loop.leave(slot)
        return latents

    def _loop_for(self, images: int, request: SlotRequest) -> Loop:
        """The loop for a size and a number of tokens, kept until others are needed.

        Where shapes are recorded, it always has the same slots.
        """
        most = self.profile.slots.max
        slots = most if self._device.captures else min(images, most)
        _, height, width = request.noise.shape
        tokens = len(request.prompt.text)

        def make() -> Loop:
            return Loop(self.loaded.step, self._device, slots=slots, height=height, width=width, tokens=tokens)

        return self._loops.get((slots, height, width, tokens), make)
