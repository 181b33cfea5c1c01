"""Previews while `sdxl-trt run` works: a file beside the picture, written again and again, and gone at the end."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_trt.errors import OutputError
from sdxl_trt.files import atomic_write
from sdxl_trt.spec import LATENT_SCALE

if TYPE_CHECKING:
    from sdxl_trt.runtime.steps import Callback, Step

_ENDING = "-preview"


@contextlib.contextmanager
def shown_previews(target: Path, every: int | None) -> Iterator[Callback | None]:
    """A callback that writes previews at the pictures' size, for the length of the block; no file outlives it.

    The first picture's is called as the picture with -preview, the next one's with -preview-2.

    Args:
        target: the PNG file of the picture, or of the pictures before their seeds.
        every: how many evaluations lie between two previews of a picture; None: there are none.

    Raises:
        OutputError: there is a file of such a name already, or it cannot be written.
    """
    if every is None:
        yield None
        return
    _check_names(target)
    written: set[Path] = set()

    def write(step: Step) -> None:
        if step.done % every == 0:
            file = target.with_stem(target.stem + _ENDING + (f"-{step.picture + 1}" if step.picture else ""))
            written.add(file)
            _write(step, file)

    try:
        yield write
    finally:
        for file in written:
            file.unlink(missing_ok=True)


def _check_names(target: Path) -> None:
    taken = sorted(target.parent.glob(glob.escape(target.stem + _ENDING) + f"*{target.suffix}"))
    if taken:
        raise OutputError(
            f"previews would overwrite {taken[0]}",
            got="a file that is there already",
            expected=f"no {target.stem}{_ENDING}{target.suffix}",
            fix="remove it, or choose another name with -o",
        )


def _write(step: Step, file: Path) -> None:
    from PIL import Image

    small = Image.fromarray(step.preview())
    with atomic_write(file) as stream:
        small.resize((small.width * LATENT_SCALE, small.height * LATENT_SCALE), Image.Resampling.BICUBIC).save(
            stream, "PNG"
        )
