"""What a server gives: pictures as the files that they came as, decoded where somebody looks."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_trt.errors import TransferError
from sdxl_trt.files import atomic_write

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """A picture as a file's bytes."""

    data: bytes
    """The server's own; a PNG file says how it was made."""
    format: str
    """'png', 'jpeg' or 'webp'."""
    index: int
    """Its number among the pictures that were asked for at once, from 0."""

    @functools.cached_property
    def image(self) -> Image:
        """Decoded.

        Raises:
            TransferError: it is damaged, or no picture.
        """
        from PIL import Image

        try:
            image = Image.open(io.BytesIO(self.data), formats=[self.format])
            image.load()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise TransferError(
                "the server's picture cannot be read", got=str(error), expected=f"a whole {self.format} file"
            ) from error
        return image

    def save(self, path: Path) -> None:
        """Write the file as it came, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        with atomic_write(path) as file:
            file.write(self.data)


@dataclass(frozen=True, kw_only=True)
class Picture(PictureFile):
    """One that is done."""

    seed: int
    """That it was made from."""


@dataclass(frozen=True, kw_only=True)
class Partial(PictureFile):
    """What a picture looks like on its way."""

    number: int
    """Of the partial pictures of that picture, from 0."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Those that were asked for at once."""

    items: Sequence[Picture]
    request_id: str | None = None
    """The server's name for the request, in its log."""

    def __iter__(self) -> Iterator[Picture]:
        """One after the other."""
        return iter(self.items)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.items)

    @property
    def images(self) -> list[Image]:
        """Decoded.

        Raises:
            TransferError: one is damaged, or no picture.
        """
        return [picture.image for picture in self.items]

    @property
    def seeds(self) -> tuple[int, ...]:
        """One for each picture."""
        return tuple(picture.seed for picture in self.items)


Event = Partial | Picture
"""What a stream tells."""
