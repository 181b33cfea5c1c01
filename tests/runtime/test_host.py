"""What a host can run: the flavour for a GPU, and libraries that are there in name only."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sdxl_trt.errors import FlavourUnavailable
from sdxl_trt.runtime.host import choose_flavour, this_host

ALL = {"tensorrt": "11.0", "tensorrt-rtx": "1.7", "onnxruntime-cuda": "1.31"}


@pytest.mark.parametrize(
    ("sm", "here", "chosen"),
    [
        (86, ALL, "tensorrt"),
        (86, {"tensorrt-rtx": "1.7", "onnxruntime-cuda": "1.31"}, "tensorrt-rtx"),
        (90, {"tensorrt-rtx": "1.7", "onnxruntime-cuda": "1.31"}, "onnxruntime-cuda"),
        (90, ALL, "tensorrt"),
    ],
)
def test_the_flavour_fits_the_gpu(sm: int, here: dict[str, str], chosen: str) -> None:
    assert choose_flavour(sm, here) == chosen


@pytest.mark.parametrize("here", [{}, {"tensorrt-rtx": "1.7"}])
def test_no_flavour_fits(here: dict[str, str]) -> None:
    with pytest.raises(FlavourUnavailable, match="SM 90") as caught:
        choose_flavour(90, here)
    assert "ort-cuda" in caught.value.fix
    assert "rtx" not in caught.value.fix


def test_empty_folders_are_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is left where one of two onnxruntimes was uninstalled."""
    (tmp_path / "onnxruntime" / "capi").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    assert this_host().flavours == {}
