"""What can be built on this host, and exactly what is missing where something cannot."""

from __future__ import annotations

import sys
from pathlib import Path

import onnxruntime
import pytest
import tensorrt_rtx

from sdxl_trt.bundle.hosts import GRAPHS, ON_CPU
from sdxl_trt.cli.build import NAMES
from sdxl_trt.engines import trt
from sdxl_trt.engines.build import build
from sdxl_trt.engines.flavours import FLAVOURS, available_flavours, check_buildable, check_gpu, host_sm
from sdxl_trt.engines.targets import resolve_targets
from sdxl_trt.errors import FlavourUnavailable
from sdxl_trt.gpus import ARCHITECTURES, RTX_SMS, able_flavours
from sdxl_trt.libraries import error_log, require
from sdxl_trt.spec import Profile


def host_gpu() -> int | None:
    try:
        return host_sm()
    except FlavourUnavailable:
        return None


def test_available_flavours() -> None:
    states = available_flavours()
    assert states["onnxruntime"] == onnxruntime.__version__
    assert states["tensorrt-rtx"] == tensorrt_rtx.__version__
    assert set(states) == set(FLAVOURS)


def test_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, export: Path, profile: Profile, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # as if it were not installed, wherever this runs
    state = available_flavours()["tensorrt"]
    assert isinstance(state, FlavourUnavailable)
    assert state.what == "tensorrt cannot be imported"
    assert "on a host with that GPU: pip install 'sdxl-trt[tensorrt]'" in state.fix
    assert "tensorrt-rtx, which needs no GPU" in state.fix
    with pytest.raises(FlavourUnavailable, match="tensorrt cannot be imported"):
        build(export, tmp_path / "bundle", resolve_targets(["cpu", "h100"]), profile=profile)
    assert not (tmp_path / "bundle").exists(), "refused before anything was written"


def test_old_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_rtx, "__version__", "1.6.9.9")
    with pytest.raises(FlavourUnavailable, match="too old") as caught:
        check_buildable(FLAVOURS["tensorrt-rtx"], [86])
    assert (caught.value.got, caught.value.expected) == ("1.6.9.9", "1.7 or later")


def test_library_that_cannot_be_loaded_is_the_same_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("import ctypes\nctypes.CDLL('libnvinfer.so.none')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(FlavourUnavailable, match=r"libnvinfer\.so\.none"):
        require("tensorrt", "build")


@pytest.mark.skipif(host_gpu() is not None, reason="this host has a GPU")
def test_missing_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_rtx)  # the GPU is looked for before anything is built
    monkeypatch.setattr(tensorrt_rtx, "__version__", "10.13.0.1")
    with pytest.raises(FlavourUnavailable) as caught:
        check_buildable(FLAVOURS["tensorrt"], [90])
    assert "finds no GPU" in caught.value.what
    assert "driver" in caught.value.got.lower()
    assert "tensorrt-rtx" in caught.value.fix


def test_other_gpu_is_named() -> None:
    check_gpu(FLAVOURS["tensorrt"], [86], present=86)
    with pytest.raises(FlavourUnavailable) as caught:
        check_gpu(FLAVOURS["tensorrt"], [90], present=86)
    assert "SM 90" in caught.value.what
    assert "SM 86" in caught.value.got
    assert "tensorrt-rtx" not in caught.value.fix, "it has no SM 90"
    with pytest.raises(FlavourUnavailable) as caught:
        check_gpu(FLAVOURS["tensorrt"], [89], present=86)
    assert "tensorrt-rtx" in caught.value.fix


def test_flavours_are_the_same_everywhere() -> None:
    """Rooms that may not import one another name them too."""
    assert set(NAMES) == set(FLAVOURS) == {ON_CPU, *(name for sm in ARCHITECTURES for name in able_flavours(sm))}
    assert {name for name, flavour in FLAVOURS.items() if flavour.module == "onnxruntime"} == set(GRAPHS)


def test_every_rtx_capability_exists() -> None:
    assert all(hasattr(tensorrt_rtx.ComputeCapability, f"SM{sm}") for sm in RTX_SMS)


def test_flags_are_set_and_cleared() -> None:
    log = error_log(tensorrt_rtx)
    config = tensorrt_rtx.Builder(log).create_builder_config()
    flag = tensorrt_rtx.BuilderFlag
    assert (config.get_flag(flag.TF32), config.get_flag(flag.REQUIRE_USER_ALLOCATION)) == (True, False)
    trt.set_flags(tensorrt_rtx, config, FLAVOURS["tensorrt-rtx"].flags)
    assert (config.get_flag(flag.TF32), config.get_flag(flag.REQUIRE_USER_ALLOCATION)) == (False, True)
