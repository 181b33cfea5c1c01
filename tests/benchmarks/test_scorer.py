"""The scorer on rendered truth: it must know nearly every picture, and be taken in by no wrong one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.scorer import judge, sharpness
from scripts.demo_model.captions import BACKGROUNDS, COLOURS, RELATIONS, SHAPES, SIZES, Scene, scenes
from scripts.demo_model.pictures import BUCKETS, MOST_BLUR, plain, render

REQUIRED = 0.99


def truth(size: tuple[int, int], count: int) -> list[tuple[Scene, np.ndarray]]:
    """Held-out scenes as pictures of training's sharpness, as many of each kind."""
    random = np.random.default_rng(size)
    pairs = []
    for kind in (*SIZES, *RELATIONS):
        unseen = scenes(kind, held_out=True)
        for _ in range(count):
            scene = unseen[random.integers(len(unseen))]
            conditions = replace(plain(size), blur=float(random.uniform(0, MOST_BLUR)))
            pairs.append((scene, render(scene, conditions, random)))
    return pairs


@pytest.mark.parametrize("size", BUCKETS, ids=str)
def test_rendered_truth_is_right(size: tuple[int, int]) -> None:
    right = [judge(picture, scene).right for scene, picture in truth(size, 30)]
    print(f"{np.mean(right):.1%} of {len(right)} right, required {REQUIRED:.0%}")
    assert np.mean(right) >= REQUIRED


@pytest.mark.parametrize("size", BUCKETS, ids=str)
def test_wrong_pictures_are_wrong_in_what_is_wrong(size: tuple[int, int]) -> None:
    for scene, picture in truth(size, 10):
        for part, asked in others(scene).items():
            verdict = judge(picture, asked)
            assert not getattr(verdict, part), f"{scene.caption}: taken for {asked.caption}"


def others(scene: Scene) -> dict[str, Scene]:
    """Scenes that differ in one thing each, by the part of the verdict that must see it."""
    first, *rest = scene.things
    colour = next(c for c in COLOURS if c not in {first.colour, scene.background})
    shape = SHAPES[SHAPES.index(first.shape) - 1]
    background = next(b for b in BACKGROUNDS if b not in {scene.background, *(t.colour for t in scene.things)})
    kinds = (*SIZES, *RELATIONS)
    return {
        "colour": replace(scene, things=(replace(first, colour=colour), *rest)),
        "shape": replace(scene, things=(replace(first, shape=shape), *rest)),
        "background": replace(scene, background=background),
        "place": replace(scene, kind=kinds[kinds.index(scene.kind) ^ 1]),
    }


def test_two_things_in_each_others_place_are_wrong() -> None:
    swapped = [(replace(s, things=s.things[::-1]), p) for s, p in truth((128, 128), 30) if len(set(s.things)) == 2]
    assert swapped
    assert not any(judge(picture, asked).right for asked, picture in swapped)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_empty_picture_is_wrong(value: int) -> None:
    picture = np.full((128, 128, 3), value, np.uint8)
    assert not any(judge(picture, scene).right for kind in SIZES for scene in scenes(kind, held_out=True))
    assert sharpness(picture) == 0


def test_noise_is_wrong() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    assert not any(judge(picture, scene).right for scene in scenes("large", held_out=True))


def test_sharpness_falls_with_blur() -> None:
    scene = scenes("large", held_out=True)[0]
    blurs = (0.0, 0.5, 1.0, 1.5)
    measured = [
        sharpness(render(scene, replace(plain((128, 128)), blur=blur), np.random.default_rng(0))) for blur in blurs
    ]
    print("per pixel, by blur:", dict(zip(blurs, measured, strict=True)))
    assert measured == sorted(measured, reverse=True)
    assert measured[0] > 1.5 * measured[-1]
