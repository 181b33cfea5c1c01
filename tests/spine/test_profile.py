"""Sizes, ranges and the profiles that engines are built for."""

from __future__ import annotations

import pytest

from sdxl_trt.errors import UnsupportedSize, UsageError
from sdxl_trt.spec import COLUMN_WIDTH, HISTORY, Column, Profile, Range, parse_size

PROFILE = Profile.make(smallest=(512, 768), best=(1024, 1024), largest=(1536, 1280), batch=4)


def test_axes() -> None:
    def ends(name: str, graph: str) -> tuple[int, int, int]:
        axis = PROFILE.axis(name, graph)
        return axis.min, axis.opt, axis.max

    assert ends("width", "step") == (64, 128, 192)
    assert ends("height", "step") == (96, 128, 160)
    assert ends("8*width", "vae_encoder") == (512, 1024, 1536)
    assert ends("rows", "step") == (1, 2, 8)
    assert ends("slots", "step") == (1, 1, 4)
    assert ends("slots", "vae_decoder") == (1, 1, 1)
    assert ends("tokens", "step") == (77, 77, 308)


def test_the_vae_may_take_less() -> None:
    profile = Profile.make(smallest=(512, 768), best=(1024, 1024), largest=(1536, 1280), batch=4, vae_tile=576)
    for graph in ("vae_decoder", "vae_encoder"):
        assert profile.axis("width", graph) == Range(min=64, opt=72, max=72)
        assert profile.axis("8*height", graph) == Range(min=576, opt=576, max=576)
        assert profile.axis("slots", graph) == PROFILE.axis("slots", graph)
    for name in ("width", "height", "slots", "tokens"):
        assert profile.axis(name, "step") == PROFILE.axis(name, "step")
    profile.check_size((1536, 1280))


@pytest.mark.parametrize("tile", [0, -32, 8, 520])
def test_tiles_overlap_by_a_quarter(tile: int) -> None:
    with pytest.raises(UsageError, match="multiple of 32"):
        Profile.make(smallest=(512, 512), best=(512, 512), largest=(1024, 1024), batch=1, vae_tile=tile)


@pytest.mark.parametrize("size", [(512, 768), (1024, 1024), (1536, 1280), (520, 776)])
def test_sizes_inside(size: tuple[int, int]) -> None:
    PROFILE.check_size(size)


@pytest.mark.parametrize(
    ("size", "fix"),
    [
        ((504, 1024), "--sizes 504x768..1536x1280"),
        ((1024, 1288), "--sizes 512x768..1536x1288"),
        ((8, 4096), "--sizes 8x768..1536x4096"),
        ((1024, 1021), "--size 1024x1024"),
        ((-8, 1024), "--size 8x1024"),
    ],
)
def test_sizes_outside_name_the_fix(size: tuple[int, int], fix: str) -> None:
    with pytest.raises(UnsupportedSize) as refused:
        PROFILE.check_size(size)
    assert fix in refused.value.fix


def test_parse_size() -> None:
    assert parse_size("1024x768") == parse_size(" 1024X768 ") == (1024, 768)
    for text in ("1024", "x", "1024x", "-8x8", "1e3x8", "9999999x8"):
        with pytest.raises(UsageError):
            parse_size(text)


def test_the_column_has_no_gap_and_no_overlap() -> None:
    slices = [value for value in vars(Column).values() if isinstance(value, slice)]
    covered = [index for where in slices for index in range(where.start, where.stop)]
    assert sorted(covered) == list(range(COLUMN_WIDTH))
    assert Column.transition.stop - Column.transition.start == HISTORY**2
    assert Column.input.stop - Column.input.start == HISTORY
