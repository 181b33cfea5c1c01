"""What a slot is given to do: one image, from its noise to its last step."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.brownian import BrownianPath
from sdxl_trt.runtime.table import Brownian, Table
from sdxl_trt.spec import COLUMN_WIDTH, Column


class NoiseSource(Protocol):
    """Standard normal numbers, each draw continuing the last."""

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Draw float32 numbers of a shape."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditioning:
    """What a row is conditioned on, in the graph's dtypes. Rows that share one object share their uploads."""

    text: NDArray[Any]
    """[tokens, D]: the encoders' hidden states side by side."""
    pooled: NDArray[Any]
    """[P]."""
    time_ids: NDArray[np.float32]
    """[T]: original height, width, crop top, left, target height, width."""
    guidance_embedding: NDArray[Any] | None = None
    """[G]: the guidance, where the UNet is told it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SlotRequest:
    """One image to denoise."""

    table: Table
    noise: NDArray[np.float32]
    """[4, h, w] of unit variance: where the image starts."""
    source: NoiseSource
    """Fresh noise for the steps that consume it."""
    prompt: Conditioning
    negative: Conditioning | None
    """None: guidance is off, and the slot has one row instead of two."""
    guidance: float | NDArray[np.float32]
    """One for all evaluations, or [evaluations]; where it is 1 or less, an evaluation has one row."""
    image: NDArray[np.float32] | None = None
    """[4, h, w]: latents of the input, where there is one."""
    begin: NDArray[np.float32] | None = None
    """[4, h, w]: latents that the run starts from where they are not `image`: another model's result."""
    mask: NDArray[np.float32] | None = None
    """[1, h, w]: after each step `image` is put back where it is 0; None: nowhere."""
    extra: NDArray[np.float32] | None = None
    """[C, h, w]: further channels that an inpainting UNet sees."""
    rescale: float = 0.0
    """How far guided outputs are rescaled to the prompt's own spread, 0 to 1 (arXiv 2305.08891, section 3.4)."""


class Slot:
    """A request on its way."""

    def __init__(self, request: SlotRequest) -> None:
        self.request = request
        self.position = 0
        """Evaluations done."""
        self._path: BrownianPath | None = None
        self._columns = np.empty((request.table.evaluations, COLUMN_WIDTH), np.float32)
        self._columns[:] = request.table.columns
        self._columns[:, Column.guidance.start] = request.guidance
        self._columns[:, Column.rescale] = request.rescale

    @property
    def guided(self) -> bool:
        """The next evaluation needs the negative prompt's row too."""
        return self.request.negative is not None and bool(self.column[Column.guidance] > 1)

    @property
    def rows(self) -> tuple[Conditioning, ...]:
        """Conditioning of each row of the next evaluation, the prompt's last."""
        request = self.request
        return (request.negative, request.prompt) if self.guided and request.negative else (request.prompt,)

    @property
    def finished(self) -> bool:
        """No evaluation is left."""
        return self.position == len(self._columns)

    @property
    def column(self) -> NDArray[np.float32]:
        """The column [COLUMN_WIDTH] of the next evaluation."""
        column: NDArray[np.float32] = self._columns[self.position]
        return column

    def draw(self) -> NDArray[np.float32] | None:
        """The noise [4, h, w] that the next evaluation adds; None where it adds none. Once for each evaluation."""
        noise = self.request.table.noises[self.position]
        if noise is None:
            return None
        if isinstance(noise, Brownian):
            if self._path is None:
                self._path = _path(self.request)
            return self._path.increment(*noise)
        return self.request.source.normal(self.request.noise.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class Parked:
    """An image on its way that is in no loop: all that its next evaluations need."""

    slot: Slot
    state: NDArray[np.float32]
    """[K, 4, h, w]: the sample and its sampler's history."""


def _path(request: SlotRequest) -> BrownianPath:
    """The Brownian path of a picture: of the table's seed, or of one that the picture's starting noise gives.

    Where no seed is given diffusers takes a random one, and no picture comes out twice.
    """
    drawn = request.table.brownian
    if drawn is None:
        raise ValueError("a table with Brownian increments does not say of which path")
    digest = hashlib.blake2b(request.noise.tobytes(), digest_size=7).digest()
    seed = int.from_bytes(digest, "little") if drawn.seed is None else drawn.seed
    return BrownianPath(request.noise.shape, lowest=drawn.lowest, highest=drawn.highest, seed=seed)
