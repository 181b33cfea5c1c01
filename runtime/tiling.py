"""The VAE on pictures that are larger than it takes at once, or than there is memory for: in tiles that overlap.

As diffusers' AutoencoderKL.tiled_decode and tiled_encode (0.42.1): tiles overlap by a quarter of their edge, and each
goes over linearly into the one above it, then into the one on its left. The last ones end where the picture does, so
they are smaller. Engines that take none as small run on more of the picture, of which the tile is cut out; that alone
is not diffusers', whose modules take any size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime.checks import Pair, check_integer
from sdxl_trt.spec import LATENT_SCALE, Profile, VaeSpec
from sdxl_trt.spec.profile import TILE_MULTIPLE, format_size

TILINGS = ("auto", "on", "off")
"""What `vae_tiling` may be: where engines do not take the picture whole; wherever it is larger than a tile; never."""

_OVERLAP = 4
"""A tile's edge in overlaps."""

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""An engine on part of a picture or of latents."""


def choose_tile(tiling: object, tile: object, size: Pair, vae: VaeSpec, profile: Profile) -> int | None:
    """The edge of tiles in pixels; None where the VAE is to have the picture whole.

    Args:
        tiling: one of `TILINGS`.
        tile: the edge asked for; None: the size of picture that the VAE was trained on, as in diffusers, or the
            largest that its engines take.
        size: (width, height) of the picture in pixels.
        vae, profile: of the model and its engines.

    Raises:
        UsageError: no such tiling, a tile that cannot be, or engines that do not take the picture whole as they must.
    """
    if tiling not in TILINGS:
        raise _wrong("vae_tiling", f"{tiling!r:.80}", ", ".join(TILINGS), 'vae_tiling="auto"')
    width, height = (profile.axis(name, "vae_decoder").max * LATENT_SCALE for name in ("width", "height"))
    edge = _edge(tile, min(width, height), vae)
    whole = size[0] <= width and size[1] <= height
    if tiling == "off" and not whole:
        expected = f"pictures of up to {format_size((width, height))}, which is what the VAE's engines take at once"
        raise _wrong("vae_tiling", f"'off' at {format_size(size)}", expected, 'vae_tiling="auto"')
    if tiling == "off" or (tiling == "auto" and whole) or max(size) <= edge:
        return None
    return edge


def _edge(tile: object, most: int, vae: VaeSpec) -> int:
    """The edge of tiles, where there are any."""
    if tile is None:
        return max(min(vae.sample_size, most) // TILE_MULTIPLE, 1) * TILE_MULTIPLE
    edge = check_integer("vae_tile", tile, least=TILE_MULTIPLE)
    if edge > most or edge % TILE_MULTIPLE:
        expected = f"a multiple of {TILE_MULTIPLE} up to {most}, the pixels that the VAE's engines take at once"
        raise _wrong("vae_tile", str(edge), expected, "leave it out")
    return edge


class _Window(NamedTuple):
    """A tile along one direction, in latent elements."""

    begin: int
    end: int
    start: int
    """What the engine runs on, where that is more."""
    stop: int


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Tiles of one size, in latent elements."""

    edge: int
    """A multiple of 4."""
    least: Pair
    """(height, width) of the smallest that the engine takes; pictures are no smaller."""

    @property
    def step(self) -> int:
        """From one tile to the next."""
        return self.edge - self.edge // _OVERLAP

    def shapes(self, height: int, width: int) -> set[Pair]:
        """All (height, width) that the engine runs at."""
        rows, columns = self._windows(height, 0), self._windows(width, 1)
        return {(row.stop - row.start, column.stop - column.start) for row in rows for column in columns}

    def apply(self, run: Run, array: NDArray[np.float32], *, read: int, written: int) -> NDArray[np.float32]:
        """Run on every tile of an array, and put the results together.

        Args:
            run: takes [C, h · read, w · read], gives [D, h · written, w · written].
            array: [C, height · read, width · read].
            read, written: elements of the array, and of the result, to a latent element.

        Returns:
            [D, height · written, width · written].
        """
        bands, above = [], list[NDArray[np.float32]]()
        overlap, cut = self.edge // _OVERLAP * written, slice(self.step * written)
        for row in self._windows(array.shape[1] // read, 0):
            tiles = list[NDArray[np.float32]]()
            for column in self._windows(array.shape[2] // read, 1):
                tile = _run(run, array, row, column, read, written)
                if above:
                    _blend(above[len(tiles)], tile, 1, overlap)
                if tiles:
                    _blend(tiles[-1], tile, 2, overlap)
                tiles.append(tile)
            bands.append(np.concatenate([tile[:, cut, cut] for tile in tiles], axis=2))
            above = tiles
        return np.concatenate(bands, axis=1)

    def _windows(self, length: int, direction: int) -> list[_Window]:
        return list(self._along(length, self.least[direction]))

    def _along(self, length: int, least: int) -> Iterator[_Window]:
        for begin in range(0, length, self.step):
            end = min(begin + self.edge, length)
            start = min(begin, length - least)
            yield _Window(begin, end, start, max(end, start + least))


def _run(
    run: Run, array: NDArray[np.float32], row: _Window, column: _Window, read: int, written: int
) -> NDArray[np.float32]:
    """One tile, not blended."""
    part = array[:, row.start * read : row.stop * read, column.start * read : column.stop * read]
    rows, columns = (
        slice((each.begin - each.start) * written, (each.end - each.start) * written) for each in (row, column)
    )
    return run(np.ascontiguousarray(part))[:, rows, columns]


def _blend(before: NDArray[Any], tile: NDArray[Any], axis: int, overlap: int) -> None:
    """Let the first rows (axis 1) or columns (axis 2) of a tile come in as the last ones of the one before it go."""
    extent = min(before.shape[axis], tile.shape[axis], overlap)
    coming = _coming(extent)
    going = (1 - coming).astype(np.float32)
    last, first = np.moveaxis(before, axis, -1)[..., -extent:], np.moveaxis(tile, axis, -1)[..., :extent]
    first[...] = last * going + first * coming.astype(np.float32)


def _coming(extent: int) -> NDArray[np.float64]:
    """How much of a tile there is in each row or column of an overlap; the rest is of the one before."""
    return np.arange(extent) / extent


def _wrong(what: str, got: str, expected: str, fix: str) -> UsageError:
    return UsageError(f"{what} cannot be used", got=got, expected=expected, fix=fix)
