"""The shapes a set of engines takes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sdxl_trt.errors import UnsupportedSize, UsageError

LATENT_SCALE = 8
"""Pixels per latent element, in each direction."""

TILE_MULTIPLE = 4 * LATENT_SCALE
"""Of the edge in pixels of the VAE's tiles: they overlap by a quarter, which is whole latent elements."""

Size = tuple[int, int]
"""(width, height) in pixels."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Smallest, best-tuned and largest value of an axis."""

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 0 < self.min <= self.opt <= self.max:
            raise ValueError(f"a range needs 0 < min ≤ opt ≤ max, not {self.min}, {self.opt}, {self.max}")

    def scaled(self, factor: int) -> Range:
        """The range of a value `factor` times as large."""
        return Range(min=self.min * factor, opt=self.opt * factor, max=self.max * factor)

    def limited(self, most: int) -> Range:
        """The range with no value over `most`."""
        return Range(min=min(self.min, most), opt=min(self.opt, most), max=min(self.max, most))


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What one target's engines were built for; widths and heights in latent elements."""

    width: Range
    height: Range
    slots: Range
    """Images in flight."""
    tokens: Range
    vae_tile: int | None = None
    """The most latent elements that the VAE's engines take in each direction, where that is less: larger pictures go
    through it in tiles."""

    def __post_init__(self) -> None:
        if self.vae_tile is not None and not _is_tile(self.vae_tile * LATENT_SCALE):
            raise ValueError(f"tiles of {self.vae_tile} latent elements cannot overlap by a quarter")

    @classmethod
    def make(
        cls,
        *,
        smallest: Size,
        best: Size,
        largest: Size,
        batch: int,
        tokens: int = 77,
        chunks: int = 4,
        vae_tile: int | None = None,
    ) -> Profile:
        """A profile from sizes in pixels, (width, height), and the most images denoised at once.

        `tokens` is what one text encoder call reads; a prompt may be up to `chunks` of those. `vae_tile` is the most
        pixels that the VAE's engines take in each direction; None: all that the others do.

        Raises:
            UsageError: a size that is not a multiple of 8 or out of order, a batch that is not positive, or a tile that
                is no positive multiple of 32.
        """
        if not 1 <= batch <= 64:
            raise UsageError("the batch is out of range", got=str(batch), expected="1 to 64 images", fix="--batch 4")
        for size in (smallest, best, largest):
            check_multiple(size)
        if vae_tile is not None:
            check_tile(vae_tile)
        try:
            width, height = (
                Range(min=low // LATENT_SCALE, opt=opt // LATENT_SCALE, max=high // LATENT_SCALE)
                for low, opt, high in zip(smallest, best, largest, strict=True)
            )
        except ValueError as error:
            raise UsageError(
                "the sizes are out of order",
                got=f"{format_size(smallest)} to {format_size(largest)}, best at {format_size(best)}",
                expected="a smallest size no larger than the largest in either direction",
                fix="--sizes 512x512..1536x1536",
            ) from error
        return cls(
            width=width,
            height=height,
            slots=Range(min=1, opt=1, max=batch),
            tokens=Range(min=tokens, opt=tokens, max=tokens * chunks),
            vae_tile=None if vae_tile is None else vae_tile // LATENT_SCALE,
        )

    def axis(self, name: str, graph: str) -> Range:
        """Range of a named axis in a graph. The VAE takes one picture at a time: it gains nothing from more."""
        if name == "slots" and graph.startswith("vae"):
            return Range(min=1, opt=1, max=1)
        if name == "rows":
            return Range(min=1, opt=2 * self.slots.opt, max=2 * self.slots.max)
        if name.startswith("8*"):
            return self.axis(name[2:], graph).scaled(LATENT_SCALE)
        ranges = {"slots": self.slots, "width": self.width, "height": self.height, "tokens": self.tokens}
        if self.vae_tile is None or name not in ("width", "height") or not graph.startswith("vae"):
            return ranges[name]
        return ranges[name].limited(self.vae_tile)

    def check_size(self, size: Size) -> None:
        """Refuse a picture size these engines do not take.

        Raises:
            UnsupportedSize: not a multiple of 8, or outside the range; names the range and the way to widen it.
        """
        check_multiple(size)
        latent = [pixels // LATENT_SCALE for pixels in size]
        ranges = (self.width, self.height)
        if all(r.min <= edge <= r.max for edge, r in zip(latent, ranges, strict=True)):
            return
        low, high = ([getattr(r, end) * LATENT_SCALE for r in ranges] for end in ("min", "max"))
        new_low = [min(a, b) for a, b in zip(low, size, strict=True)]
        new_high = [max(a, b) for a, b in zip(high, size, strict=True)]
        raise UnsupportedSize(
            "the engines were not built for this size",
            got=format_size(size),
            expected=f"{format_size((low[0], low[1]))} to {format_size((high[0], high[1]))}",
            fix=f"sdxl-trt build … --sizes {format_size((new_low[0], new_low[1]))}"
            f"..{format_size((new_high[0], new_high[1]))}",
        )


def _is_tile(edge: int) -> bool:
    """Pixels that an edge of tiles can have."""
    return edge > 0 and edge % TILE_MULTIPLE == 0


def check_tile(edge: int) -> None:
    """Refuse an edge in pixels that the VAE's tiles cannot have.

    Raises:
        UsageError: no positive multiple of 32.
    """
    if not _is_tile(edge):
        expected = f"a positive multiple of {TILE_MULTIPLE} pixels"
        raise UsageError("the VAE's tile cannot be used", got=str(edge), expected=expected, fix="--vae-tile 512")


def check_multiple(size: Size) -> None:
    """Refuse a size that no SDXL can make.

    Raises:
        UnsupportedSize: an edge that is not a positive multiple of 8 pixels.
    """
    if all(edge > 0 and edge % LATENT_SCALE == 0 for edge in size):
        return
    near = tuple(max(LATENT_SCALE, round(edge / LATENT_SCALE) * LATENT_SCALE) for edge in size)
    raise UnsupportedSize(
        "the size is not a multiple of 8",
        got=format_size(size),
        expected="width and height in pixels, each a positive multiple of 8",
        fix=f"--size {format_size((near[0], near[1]))}",
    )


def format_size(size: Size) -> str:
    """(1024, 768) as `1024x768`."""
    return f"{size[0]}x{size[1]}"


def parse_size(text: str) -> Size:
    """`1024x768` as (1024, 768): width, then height, in pixels.

    Raises:
        UsageError: not two numbers with an x between them.
    """
    match = re.fullmatch(r"(\d{1,6})[x×](\d{1,6})", text.strip().lower())
    if not match:
        raise UsageError(
            "the size cannot be read", got=repr(text), expected="WIDTHxHEIGHT in pixels", fix="--size 1024x1024"
        )
    return int(match[1]), int(match[2])
