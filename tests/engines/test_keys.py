"""Every ingredient of an engine changes its key, and nothing else does."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from sdxl_trt.engines import keys
from sdxl_trt.engines.keys import engine_key
from sdxl_trt.spec import Range

BASE: dict[str, Any] = {
    "graph": "a" * 64,
    "weights": {"unet/model.safetensors": "b" * 64, "unet/more.safetensors": "c" * 64},
    "flavour": "tensorrt-rtx",
    "flavour_version": "1.7.1.116",
    "flags": ("-TF32", "+REQUIRE_USER_ALLOCATION"),
    "sms": (86, 89),
    "processor": "x86_64",
    "precision": "float16",
    "ranges": {"rows": Range(min=1, opt=2, max=8), "width": Range(min=64, opt=128, max=192)},
}
OTHERS: dict[str, Any] = {
    "graph": "d" * 64,
    "weights": {"unet/model.safetensors": "c" * 64, "unet/more.safetensors": "b" * 64},
    "flavour": "tensorrt",
    "flavour_version": "1.7.1.117",
    "flags": ("+TF32", "+REQUIRE_USER_ALLOCATION"),
    "sms": (86,),
    "processor": "aarch64",
    "precision": "float32",
    "ranges": {"rows": Range(min=1, opt=2, max=8), "width": Range(min=64, opt=96, max=192)},
}


@pytest.mark.parametrize("ingredient", inspect.signature(engine_key).parameters)
def test_each_ingredient_changes_the_key(ingredient: str) -> None:
    other = engine_key(**{**BASE, ingredient: OTHERS[ingredient]})
    assert other != engine_key(**BASE)
    assert len(other) == 64


@pytest.mark.parametrize("constant", ["SPEC_VERSION", "RECIPE"])
def test_versions_change_the_key(constant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = engine_key(**BASE)
    monkeypatch.setattr(keys, constant, getattr(keys, constant) + 1)
    assert engine_key(**BASE) != before


@pytest.mark.parametrize("end", ["min", "opt", "max"])
def test_each_end_of_a_range_counts(end: str) -> None:
    range_ = Range(min=2, opt=4, max=6)
    moved = Range(**{"min": 2, "opt": 4, "max": 6, end: {"min": 1, "opt": 5, "max": 7}[end]})
    assert engine_key(**{**BASE, "ranges": {"rows": range_}}) != engine_key(**{**BASE, "ranges": {"rows": moved}})


def test_order_does_not_matter() -> None:
    shuffled = {
        **BASE,
        "weights": dict(reversed(BASE["weights"].items())),
        "flags": BASE["flags"][::-1],
        "sms": (89, 86),
        "ranges": dict(reversed(BASE["ranges"].items())),
    }
    assert engine_key(**shuffled) == engine_key(**BASE)
