"""A model that is ready to denoise: the base model of a pipeline, or its refiner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
from sdxl_trt.runtime.steps import Follower, Teller
from sdxl_trt.runtime.table import Table
from sdxl_trt.runtime.vae import Vae

LOOPS = 4
"""Sizes whose steps stay recorded beside those that were warmed up; each has a graph for every number of rows, in
powers of two."""

_Key = tuple[int, int, int, int]
"""Slots, height, width and tokens."""


class Expert:
    """One model of a bundle on its device.

    Args:
        loaded: the model.
        device: where it runs.
        other: of the same bundle; what is the same object in both has its buffers once, and learned words.
        make_loop: makes a loop, of `Loop`'s arguments.
    """

    def __init__(
        self,
        loaded: Loaded,
        device: Device,
        other: Expert | None = None,
        *,
        make_loop: Callable[..., Loop] = Loop,
    ) -> None:
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
        self._make_loop = make_loop
        self._loops = Recent[_Key, Loop](LOOPS if device.captures else 1)

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
        if teller.calls and self.loaded.memory.swaps:
            self.vae.preview_factors()  # between steps it would take the place of the loop
        _, height, width = requests[0].noise.shape
        key, make = self._loop(len(requests), height, width, len(requests[0].prompt.text))
        loop = self._loops.get(key, make)
        latents = np.empty((len(requests), *requests[0].noise.shape), np.float32)
        follower = Follower(teller, loop, self.vae.preview_factors)
        waiting, running = list(range(len(requests))), dict[int, int]()
        try:
            while waiting or running:
                while waiting and loop.free:
                    index = waiting.pop(0)
                    running[loop.join(requests[index])] = index
                finished = loop.step()
                follower.step(running)
                for slot in finished:
                    latents[running.pop(slot)] = loop.latents(slot)
                    loop.leave(slot)
            follower.finish()
        finally:  # after an error or an interrupt the loop is as good as new
            for slot in running:
                loop.leave(slot)
        return latents

    def warm_up(self, images: int, height: int, width: int, tokens: int) -> None:
        """Prepare the loop for so many pictures of a size for good, and run its steps once, guided and not.

        Raises:
            RunError: the engine failed.
        """
        most = self.profile.slots.max
        in_flight = {min(images, most), images % most or most}  # pictures of a request step together; then the rest
        evaluations = (1,) if self.model.unet.guidance_embedding else (1, 2)
        rows = (each * count for each in in_flight for count in evaluations)
        self._loops.keep(*self._loop(images, height, width, tokens)).warm_up(rows)

    def _loop(self, images: int, height: int, width: int, tokens: int) -> tuple[_Key, Callable[[], Loop]]:
        """What tells the loop for so many pictures from others, and how it is made.

        Where shapes are recorded, it always has the same slots.
        """
        most = self.profile.slots.max
        slots = most if self._device.captures else min(images, most)

        def make() -> Loop:
            return self.new_loop(self._loops, slots, height, width, tokens)

        return (slots, height, width, tokens), make

    def new_loop(self, kept: Recent[Any, Any], slots: int, height: int, width: int, tokens: int) -> Loop:
        """A loop for images of one size.

        Args:
            kept: will have it; is cleared before the engine makes room for another.
            slots: images in flight at most.
            height, width: of the latent.
            tokens: of the text that rows are conditioned on.
        """
        self.loaded.step.use(kept)
        axes = {"slots": slots, "height": height, "width": width, "tokens": tokens}
        return self._make_loop(self.loaded.step, self._device, **axes)
