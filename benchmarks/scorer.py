"""Reads a picture of the demo model as the scene it shows: classical image analysis, nothing trained.

The background is the border's colour. What differs from it falls into connected parts, one per thing. A thing's colour
is the nearest of the palette to its core, its shape the nearest of templates rendered as the training pictures are,
its size that of its bounding box, and two things' places are those of their centres.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from scripts.demo_model.captions import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scene, Thing
from scripts.demo_model.pictures import DIAMETERS, plain, render

Picture = NDArray[np.uint8]
"""[height, width, 3], sRGB."""
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

CONTRAST = 40
"""What differs from the background by so much in a channel belongs to a thing; the palette's least difference is 82."""
SPECK = 0.003
"""Parts smaller than this part of the picture are no things."""
TEMPLATE = 24
"""Edge of a shape's template, in pixels."""
TEMPLATE_SIZE = (128, 128)
LEAST_LARGE = (DIAMETERS["large"][0] + DIAMETERS["small"][1]) / 2
"""Smallest diameter of a large thing, in short sides of the picture."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which parts of a prompt a picture fulfils."""

    background: bool
    colour: bool
    shape: bool
    place: bool
    """How many things there are, and their size or position."""

    @property
    def right(self) -> bool:
        """All of it."""
        return self.background and self.colour and self.shape and self.place


@dataclass(frozen=True, kw_only=True)
class Part:
    """One connected part that is not background."""

    thing: Thing
    centre: tuple[float, float]
    """(x, y) in pixels."""
    diameter: float
    """The longer side of its bounding box, in pixels."""


def judge(picture: Picture, asked: Scene) -> Verdict:
    """Compare what a picture shows with what was asked for; things are compared in the order of the caption."""
    background, parts = read(picture)
    kind, shown = _arrange(parts, min(picture.shape[:2]))
    matched = len(shown) == len(asked.things)
    pairs = list(zip(shown, asked.things, strict=True)) if matched else []
    return Verdict(
        background=background == asked.background,
        colour=matched and all(one.colour == other.colour for one, other in pairs),
        shape=matched and all(one.shape == other.shape for one, other in pairs),
        place=kind == asked.kind,
    )


def read(picture: Picture) -> tuple[str, list[Part]]:
    """The background's name, and all things, in no order."""
    pixels = picture.astype(np.float64)
    background = _background(pixels)
    distance = np.abs(pixels - background).max(axis=-1)
    parts = [_part(pixels, distance, mask) for mask in connected(distance > CONTRAST) if mask.mean() > SPECK]
    return _nearest(background, BACKGROUNDS), parts


def sharpness(picture: Picture) -> float:
    """How steep the edges of things are: the mean gradient where it crosses half of the contrast, per pixel.

    A step that falls between two pixels has 0.5. 0 for a picture without things.
    """
    pixels = picture.astype(np.float64)
    distance = np.abs(pixels - _background(pixels)).max(axis=-1)
    slopes = []
    for mask in connected(distance > CONTRAST):
        if mask.mean() > SPECK:
            cover = np.minimum(distance / np.quantile(distance[mask], 0.8), 1.0)
            down, across = np.gradient(cover)
            edge = dilated(mask) & (np.abs(cover - 0.5) < 0.25)
            slopes.append(np.hypot(down, across)[edge])
    return float(np.concatenate(slopes).mean()) if slopes else 0.0


def connected(mask: Mask) -> list[Mask]:
    """The 8-connected parts of a mask."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:  # each pixel takes the greatest label around it
        padded = np.pad(labels, 1)
        height, width = labels.shape
        around = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
        spread = np.where(mask, np.max(around, axis=0), 0)
        if (spread == labels).all():
            return [labels == label for label in np.unique(labels[mask])]
        labels = spread


def dilated(mask: Mask) -> Mask:
    """A mask and all pixels that touch it."""
    padded, (height, width) = np.pad(mask, 1), mask.shape
    spread: Mask = np.any([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
    return spread


def _background(pixels: Floats) -> Floats:
    """The colour of the picture's border."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return np.asarray(np.median(border, axis=0))


def _arrange(parts: list[Part], short: int) -> tuple[str, list[Thing]]:
    """The kind of scene that parts form, and the things in the order its caption names them; '' for no scene."""
    if len(parts) == 1:
        return ("large" if parts[0].diameter > LEAST_LARGE * short else "small"), [parts[0].thing]
    if len(parts) != 2:
        return "", []
    across, down = (abs(parts[0].centre[axis] - parts[1].centre[axis]) for axis in (0, 1))
    axis = 0 if across > down else 1
    first, second = sorted(parts, key=lambda part: part.centre[axis])
    return ("left", "above")[axis], [first.thing, second.thing]


def _part(pixels: Floats, distance: Floats, mask: Mask) -> Part:
    core = mask & (distance >= np.quantile(distance[mask], 0.6))
    colour = _nearest(np.median(pixels[core], axis=0), COLOURS)
    cover = np.where(mask, np.minimum(distance / np.quantile(distance[mask], 0.8), 1.0), 0.0)
    box = _box(cover)
    return Part(
        thing=Thing(colour=colour, shape=_nearest(_normal(cover, box), _templates())),
        centre=((box[0] + box[2]) / 2, (box[1] + box[3]) / 2),
        diameter=max(box[2] - box[0], box[3] - box[1]),
    )


Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""


def _box(cover: Floats) -> Box:
    """What encloses all that is covered by half or more."""
    rows, columns = (np.flatnonzero((cover >= 0.5).any(axis=axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _normal(cover: Floats, box: Box) -> Floats:
    """What a bounding box holds, at the templates' size, flat."""
    image = Image.fromarray(cover.astype(np.float32)).resize((TEMPLATE, TEMPLATE), Image.Resampling.BOX, box=box)
    return np.asarray(image, dtype=np.float64).ravel()


def _nearest(value: Floats, among: Mapping[str, ArrayLike]) -> str:
    """The name with the smallest squared distance from any of its rows to `value`."""

    def distance(name: str) -> float:
        return float(np.square(np.reshape(among[name], (-1, value.size)) - value).sum(axis=-1).min())

    return min(among, key=distance)


@cache
def _templates() -> dict[str, Floats]:
    """How each shape covers its bounding box: rows of pictures, small and large, sharp and soft."""
    return {
        shape: np.stack([_template(shape, kind, blur) for kind in SIZES for blur in (0.0, 1.0)]) for shape in SHAPES
    }


def _template(shape: str, kind: str, blur: float) -> Floats:
    scene = Scene(kind=kind, things=(Thing(colour="white", shape=shape),), background="black")
    picture = render(scene, replace(plain(TEMPLATE_SIZE), blur=blur), np.random.default_rng(0))
    cover = picture[..., 0] / 255
    return _normal(cover, _box(cover))
