"""One model's part of a request: what all its pictures have in common, and the work of each.

A draft is what can be known, and refused, before an engine runs; encoding its prompts makes it a plan.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.expert import Expert
from sdxl_trt.runtime.guidance import guidances
from sdxl_trt.runtime.request import Resolved
from sdxl_trt.runtime.results import check_finite
from sdxl_trt.runtime.slots import Conditioning, NoiseSource, SlotRequest
from sdxl_trt.runtime.starts import Start, Starter
from sdxl_trt.runtime.steps import Teller
from sdxl_trt.runtime.table import Table


@dataclass(frozen=True, kw_only=True, eq=False)
class Draft:
    """All checked but for the length of prompts; nothing has run."""

    expert: Expert
    settings: Resolved
    table: Table
    guidance: NDArray[np.float32]
    """[evaluations]."""

    @classmethod
    def make(cls, expert: Expert, settings: Resolved, table: Table) -> Draft:
        """The draft of a request.

        Raises:
            UsageError: guidance has another number of values than there are steps.
        """
        guidance = guidances(settings, table.steps, table.evaluations)
        return cls(expert=expert, settings=settings, table=table, guidance=guidance)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The UNet's rows that each evaluation [evaluations] of a picture takes."""
        return np.where(self.guidance > 1, 2, 1) if self.settings.guided else np.ones(len(self.guidance), np.int64)

    def encode(self) -> Plan:
        """Encode the prompts.

        Raises:
            PromptTooLong, UsageError: as of `Conditioner`.
            RunError: an engine failed.
        """
        prompt, negative = self.expert.condition(self.settings)
        return Plan(
            expert=self.expert,
            settings=self.settings,
            table=self.table,
            guidance=self.guidance,
            prompt=prompt,
            negative=negative,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan(Draft):
    """All checked and encoded, so that nothing is refused once it is begun."""

    prompt: Conditioning
    negative: Conditioning | None

    def begin(
        self, sources: Sequence[NoiseSource], noise: NDArray[np.float32] | None, *, refined: bool
    ) -> list[SlotRequest]:
        """One slot's work for each picture.

        Args:
            sources: the pictures' generators.
            noise: the caller's own to start from.
            refined: a refiner goes on with the results.
        """
        settings, expert = self.settings, self.expert
        encode = functools.partial(expert.vae.moments, tile=settings.vae_tile)
        starter = Starter(expert.model, settings.given, encode, self.table, refined=refined)
        return [
            self.slot(
                source, starter.start(index, source, settings.latent_shape, None if noise is None else noise[index])
            )
            for index, source in enumerate(sources)
        ]

    def slot(self, source: NoiseSource, start: Start) -> SlotRequest:
        """The work of one picture."""
        return SlotRequest(
            table=self.table,
            noise=start.noise,
            source=source,
            prompt=self.prompt,
            negative=self.negative,
            guidance=self.guidance,
            rescale=self.settings.guidance_rescale,
            begin=start.begin,
            image=start.image,
            mask=start.mask,
            extra=start.extra,
        )

    def denoise(self, requests: Sequence[SlotRequest], teller: Teller) -> NDArray[np.float32]:
        """Final latents [N, 4, h, w].

        Raises:
            RunError: the engine failed, or gave NaN or infinity.
        """
        latents = self.expert.denoise(requests, teller)
        check_finite(latents, "denoising", self.settings)
        return latents
