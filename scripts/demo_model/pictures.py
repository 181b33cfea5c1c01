"""Scenes as pictures, with the micro-conditioning that SDXL trains on (arXiv:2307.01952, section 2.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from scripts.demo_model.captions import BACKGROUNDS, COLOURS, SIZES, Scene

SUPERSAMPLING = 4
BUCKETS = ((128, 128), (160, 96), (96, 160), (192, 96), (96, 192), (144, 112), (112, 144))
"""Trained sizes, (width, height) in pixels: a batch has pictures of one of them."""
DIAMETERS = {"large": (0.58, 0.74), "small": (0.26, 0.34), "left": (0.35, 0.42), "above": (0.35, 0.42)}
"""Diameter of a thing by kind of scene, in short sides of the canvas."""
SHIFTS = {"large": 0.06, "small": 0.14, "left": 0.07, "above": 0.07}
"""How far at most a scene lies off the centre, in short sides of the canvas."""
SOFTEST = 0.125
"""The smallest original, in canvases."""
SMALL_ORIGINALS, LARGE_ORIGINALS = 0.25, 0.2
"""So many pictures come from an original that is smaller, or larger, than they are."""
LONGEST_CROP = 0.35
"""The largest part of width or height that a crop takes away at the top or at the left."""
MOST_BLUR = 1.2
"""Of the Gaussian that pictures are blurred with, in pixels: the base learns all qualities alike."""
BEST_SCORE = 7.0
SCORE_PER_BLUR = 4.0
"""The aesthetic score falls by so much for each pixel of blur."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a picture is told to have been before it was brought to its size; all in pixels."""

    original: tuple[int, int]
    """(height, width) of the picture before it was resized: smaller than the target means soft."""
    crop: tuple[int, int]
    """(top, left) of what is shown, in the resized picture."""
    target: tuple[int, int]
    """(height, width)."""
    blur: float = 0.0
    """Standard deviation of the Gaussian that the picture is blurred with: what the aesthetic score stands for."""

    @property
    def time_ids(self) -> tuple[float, ...]:
        """The base's six, in diffusers' order."""
        return (*self.original, *self.crop, *self.target)

    @property
    def refiner_time_ids(self) -> tuple[float, ...]:
        """The refiner's five: the score instead of the target."""
        return (*self.original, *self.crop, BEST_SCORE - SCORE_PER_BLUR * self.blur)

    @property
    def canvas(self) -> tuple[int, int]:
        """(height, width) of the whole resized picture: crops take away at the top and at the left alone."""
        return self.crop[0] + self.target[0], self.crop[1] + self.target[1]


def plain(size: tuple[int, int]) -> Conditions:
    """The conditions of a sharp, whole picture of `size`, (width, height)."""
    return Conditions(original=size[::-1], crop=(0, 0), target=size[::-1])


def draw_conditions(random: np.random.Generator, size: tuple[int, int], quality: str = "any") -> Conditions:
    """Random conditions for a picture of `size`: most are whole and as large as the target.

    Args:
        random: draws them.
        size: (width, height) in pixels.
        quality: 'sharp': nothing makes it soft; 'soft': from a small original; 'any'.
    """
    target = size[::-1]
    crop = (0, 0)
    if random.random() < 0.2:
        crop = (_cut(random, target[0]), _cut(random, target[1]))
    kind = {"soft": 0.0, "sharp": 1.0}.get(quality, random.random())
    scale = 1.0
    if kind < SMALL_ORIGINALS:
        scale = SOFTEST ** random.random()
    elif kind < SMALL_ORIGINALS + LARGE_ORIGINALS:
        scale = 2.0 ** random.random()
    height, width = (round(scale * (edge + cut)) for edge, cut in zip(target, crop, strict=True))
    blur = 0.0 if quality == "sharp" else float(random.uniform(0.0, MOST_BLUR))
    return Conditions(original=(height, width), crop=crop, target=target, blur=blur)


def _cut(random: np.random.Generator, edge: int) -> int:
    """Pixels to take away: none half of the time."""
    return int(random.integers(1, round(LONGEST_CROP * edge) + 1)) if random.random() < 0.5 else 0


def render(scene: Scene, conditions: Conditions, random: np.random.Generator) -> NDArray[np.uint8]:
    """A picture [height, width, 3] of the scene, things placed at random within its meaning."""
    height, width = conditions.canvas
    places = _places(scene, width, height, random)
    original = conditions.original[::-1]
    fine = (original[0] * SUPERSAMPLING, original[1] * SUPERSAMPLING)
    picture = Image.new("RGB", fine, BACKGROUNDS[scene.background])
    pen = ImageDraw.Draw(picture)
    for thing, (x, y, diameter) in zip(scene.things, places, strict=True):
        scale = (fine[0] / width, fine[1] / height)
        _draw(pen, thing.shape, COLOURS[thing.colour], BACKGROUNDS[scene.background], (x, y, diameter), scale)
    picture = picture.reduce(SUPERSAMPLING)
    if original != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    picture = picture.crop((conditions.crop[1], conditions.crop[0], width, height))
    if conditions.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(conditions.blur))
    return np.asarray(picture)


def _places(scene: Scene, width: int, height: int, random: np.random.Generator) -> list[tuple[float, float, float]]:
    """Centre and diameter of each thing, in pixels of the canvas."""
    short = min(width, height)
    shift = SHIFTS[scene.kind] * short
    x, y = width / 2 + random.uniform(-shift, shift), height / 2 + random.uniform(-shift, shift)
    diameters = random.uniform(*DIAMETERS[scene.kind], size=2) * short
    if scene.kind in SIZES:
        return [(x, y, diameters[0])]
    if scene.kind == "left":
        x, away = width / 2, random.uniform(0.50, 0.53) * min(width, 1.25 * short) / 2
        tilt = random.uniform(-0.05, 0.05) * short
        return [(x - away, y - tilt, diameters[0]), (x + away, y + tilt, diameters[1])]
    y, away = height / 2, random.uniform(0.50, 0.53) * min(height, 1.25 * short) / 2
    tilt = random.uniform(-0.05, 0.05) * short
    return [(x - tilt, y - away, diameters[0]), (x + tilt, y + away, diameters[1])]


Colour = tuple[int, int, int]


def _draw(
    pen: ImageDraw.ImageDraw,
    shape: str,
    colour: Colour,
    background: Colour,
    place: tuple[float, float, float],
    scale: tuple[float, float],
) -> None:
    """Draw one shape around its centre; `scale` is pen pixels per canvas pixel."""
    x, y, diameter = place

    def at(dx: float, dy: float) -> tuple[float, float]:
        return (x + dx * diameter) * scale[0], (y + dy * diameter) * scale[1]

    if shape in {"circle", "ring"}:
        pen.ellipse((at(-0.5, -0.5), at(0.5, 0.5)), fill=colour)
        if shape == "ring":
            pen.ellipse((at(-0.27, -0.27), at(0.27, 0.27)), fill=background)
    elif shape == "square":
        pen.rectangle((at(-0.44, -0.44), at(0.44, 0.44)), fill=colour)
    elif shape == "cross":
        pen.rectangle((at(-0.5, -0.16), at(0.5, 0.16)), fill=colour)
        pen.rectangle((at(-0.16, -0.5), at(0.16, 0.5)), fill=colour)
    elif shape == "triangle":
        pen.polygon([at(0, -0.48), at(0.54, 0.45), at(-0.54, 0.45)], fill=colour)
    else:
        radii = (0.54, 0.23)
        turns = [(radii[i % 2], math.pi * i / 5) for i in range(10)]
        pen.polygon([at(r * math.sin(turn), 0.04 - r * math.cos(turn)) for r, turn in turns], fill=colour)
