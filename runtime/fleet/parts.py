"""A request in parts, one for each device, and the whole that their results are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.progress import Progress
from sdxl_trt.runtime.checks import check_seeds
from sdxl_trt.runtime.fleet.messages import SentStep, Told
from sdxl_trt.runtime.inputs import are_latents
from sdxl_trt.runtime.request import Request, Resolved
from sdxl_trt.runtime.results import Result
from sdxl_trt.runtime.steps import Callback


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Some pictures of a request, one behind the other."""

    request: Request
    noise: NDArray[Any] | None
    first: int
    """Number of its first picture in the whole."""
    pictures: int


def divide(request: Request, noise: NDArray[Any] | None, devices: int) -> list[Part]:
    """Parts that differ by a picture at most, for as many devices as there are pictures for.

    Every picture has its own generator, so it is the same wherever it is made.

    Raises:
        UsageError: seeds that cannot be used, or another number of them than of noise or latents.
    """
    image, several = request.image, False
    if are_latents(image) and image.ndim == 4:
        several = len(image) > 1
    given = image if several else noise
    seeds = check_seeds(request.seed, len(given) if isinstance(given, np.ndarray) and given.ndim else None)
    devices = min(devices, len(seeds))
    bounds = [len(seeds) * index // devices for index in range(devices + 1)]
    return [
        Part(
            request=replace(request, seed=seeds[a:b], image=image[a:b] if several else image),
            noise=noise[a:b] if isinstance(noise, np.ndarray) and noise.ndim else noise,
            first=a,
            pictures=b - a,
        )
        for a, b in itertools.pairwise(bounds)
    ]


def join(results: Sequence[Result]) -> Result:
    """The result of the whole request."""
    first = results[0]
    return Result(
        images=[image for result in results for image in result.images],
        latents=np.concatenate([result.latents for result in results]),
        seeds=tuple(seed for result in results for seed in result.seeds),
        settings=_whole([result.settings for result in results]),
        refiner=_whole([result.refiner for result in results if result.refiner]) if first.refiner else None,
    )


def _whole(parts: Sequence[Resolved]) -> Resolved:
    """Settings that make all pictures again: those of any part, with all seeds and latents."""
    seeds = tuple(seed for part in parts for seed in part.seeds)
    given = parts[0].given
    latents = [part.given.latents for part in parts if part.given and part.given.latents is not None]
    if given and sum(map(len, latents)) == len(seeds):
        given = replace(given, latents=np.concatenate(latents))
    return replace(parts[0], seeds=seeds, given=given)


class Tally:
    """Tells of the whole what is told of its parts."""

    def __init__(self, parts: Sequence[Part], progress: Progress, callback: Callback | None) -> None:
        self._parts, self._progress, self._callback = parts, progress, callback
        self._done = dict[str, dict[int, int]]()

    def hear(self, number: int, told: Told | SentStep) -> None:
        """Something was told of a part."""
        part = self._parts[number]
        if isinstance(told, SentStep):
            if self._callback:
                self._callback(told.step(part.first))
            return
        done = self._done.setdefault(told.stage, {})
        done[number] = told.done
        pictures = sum(each.pictures for each in self._parts)
        self._progress(told.stage, sum(done.values()), told.total // part.pictures * pictures)
