"""What the demo model draws: every scene, its caption, and which captions training never sees."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from itertools import product

COLOURS = {
    "red": (214, 30, 34),
    "green": (30, 160, 50),
    "blue": (30, 84, 240),
    "yellow": (250, 220, 20),
    "purple": (150, 50, 200),
    "orange": (250, 130, 20),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}
BACKGROUNDS = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "beige": (226, 204, 166),
    "navy": (14, 22, 96),
    "teal": (0, 128, 132),
}
"""8-bit sRGB by name."""
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
SIZES = ("large", "small")
RELATIONS = {"left": "to the left of", "above": "above"}
HELD_OUT = 5
"""One caption in so many is held out."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One coloured shape."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One large or small thing, or two, the first left of or above the second; never on their own colour."""

    kind: str
    """One of `SIZES` (one thing) or `RELATIONS` (two things)."""
    things: tuple[Thing, ...]
    background: str

    @property
    def caption(self) -> str:
        """The prompt that asks for this scene."""
        where = f"on a {self.background} background"
        if self.kind in SIZES:
            return f"a {self.kind} {self.things[0]} {where}"
        return f"a {self.things[0]} {RELATIONS[self.kind]} a {self.things[1]} {where}"

    @property
    def held_out(self) -> bool:
        """Training never sees this caption (drawn by its hash, so that the answer never changes)."""
        return int.from_bytes(hashlib.sha256(self.caption.encode()).digest()[:8]) % HELD_OUT == 0


@cache
def scenes(kind: str, *, held_out: bool) -> tuple[Scene, ...]:
    """All scenes of one kind that training sees, or those that it never sees."""
    count = 1 if kind in SIZES else 2
    found = []
    for background in BACKGROUNDS:
        things = [Thing(colour=c, shape=s) for c, s in product(COLOURS, SHAPES) if c != background]
        found += [Scene(kind=kind, things=each, background=background) for each in product(things, repeat=count)]
    return tuple(scene for scene in found if scene.held_out == held_out)
