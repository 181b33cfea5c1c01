"""A GPU is found however its name is written, and a name that is none gets an answer that helps."""

from __future__ import annotations

import pytest

from sdxl_trt.errors import UnknownName, UsageError
from sdxl_trt.gpus import find_gpu, load_gpus
from sdxl_trt.gpus.model import normalise

UNET_ROW_TFLOP, VAE_DECODE_TFLOP = 6.761, 10.470  # SDXL at 1024×1024, counted from the layers' shapes


def test_catalogue_names_the_gpus_of_the_published_speeds() -> None:
    expected = {"rtx3060", "rtx3090", "rtx4090", "a10", "a100", "a800", "h100", "h200", "b200", "l40s"}
    assert expected <= load_gpus().keys()
    assert "cpu" not in load_gpus()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("rtx3060", "rtx3060"),
        ("RTX-3060", "rtx3060"),
        (" geforce_rtx_4090 ", "rtx4090"),
        ("3060", "rtx3060"),
        ("3060 Ti", "rtx3060ti"),
        ("rtx3060laptop", "rtx3060-laptop"),
        ("RTX 3060 Mobile", "rtx3060-laptop"),
        ("rtx 4090 laptop gpu", "rtx4090-laptop"),
        ("A6000", "rtxa6000"),
        ("RTX PRO 6000", "rtxpro6000"),
        ("A100", "a100"),
        ("orin nano", "jetson-orin-nano"),
        ("dgx-spark", "spark"),
        # as drivers report them
        ("NVIDIA GeForce RTX 3060", "rtx3060"),
        ("NVIDIA GeForce RTX 3060 Laptop GPU", "rtx3060-laptop"),
        ("NVIDIA GeForce RTX 3080 Ti", "rtx3080ti"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "rtx4070tisuper"),
        ("NVIDIA GeForce RTX 4090 D", "rtx4090d"),
        ("GeForce RTX 2080 Super with Max-Q Design", "rtx2080super-laptop"),
        ("NVIDIA TITAN RTX", "titanrtx"),
        ("Quadro RTX 6000", "quadrortx6000"),
        ("NVIDIA RTX A6000", "rtxa6000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx6000ada"),
        ("NVIDIA RTX 4000 SFF Ada Generation", "rtx4000sffada"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "rtxpro6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "rtxpro6000-maxq"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtxpro6000-server"),
        ("Tesla T4", "t4"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-SXM4-40GB", "a100-sxm-40gb"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80gb"),
        ("NVIDIA A100-PCIE-40GB", "a100-pcie-40gb"),
        ("NVIDIA A800-SXM4-80GB", "a800"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA B300 SXM6 AC", "b300"),
        ("NVIDIA GB10", "spark"),
        ("NVIDIA Thor", "jetson-thor"),
    ],
)
def test_finds_a_gpu_however_it_is_written(name: str, key: str) -> None:
    assert find_gpu(name).key == key


def test_every_name_shown_is_found_again_and_means_one_gpu() -> None:
    owners: dict[str, str] = {}
    for key, gpu in load_gpus().items():
        assert gpu.key == key
        for name in (key, gpu.name, *gpu.aliases):
            assert find_gpu(name) == gpu
            assert owners.setdefault(normalise(name), key) == key, f"{name} means {owners[normalise(name)]} too"


def test_names_that_mean_several_gpus_mean_the_documented_one() -> None:
    expected = {"rtx2060": 6, "rtx3060": 12, "rtx3080": 10, "rtx4060ti": 8, "rtx5060ti": 8, "rtxa2000": 6, "a100": 80}
    assert {key: find_gpu(key).memory_gb for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("rtx3O60", "rtx3060"),
        ("rtx4091", "rtx4090"),
        ("RTX 3060 Ti Laptop", "rtx3060-laptop"),
        ("l40x", "l40"),
        ("jetson agx oren", "jetson-agx-orin"),
    ],
)
def test_unknown_gpu_suggests_the_nearest(name: str, suggestion: str) -> None:
    with pytest.raises(UnknownName) as caught:
        find_gpu(name)
    assert f"unknown GPU {name!r}" in str(caught.value)
    choices = caught.value.expected.split(", ")
    assert suggestion in choices
    assert choices[-1] == "cpu"
    assert set(choices) <= {*load_gpus(), "cpu"}
    assert caught.value.fix.startswith(f"`sdxl-trt gpus` lists all {len(load_gpus())}; --gpu portable builds for")
    if name.islower():
        assert caught.value.suggestion == suggestion


def test_a_number_that_several_gpus_have_gets_all_of_them() -> None:
    with pytest.raises(UnknownName) as caught:
        find_gpu("RTX 6000")
    choices = set(caught.value.expected.split(", "))
    assert choices == {
        *("quadrortx6000", "rtxa6000", "rtx6000ada"),
        *("rtxpro6000", "rtxpro6000-maxq", "rtxpro6000-server", "cpu"),
    }


@pytest.mark.parametrize(
    "name", ["", "nvidia", "a", "rtx", "rtx306", "rtx30600", "laptop", "rtx3060 12", "vega64", "m1max"]
)
def test_a_part_of_a_name_is_not_the_name(name: str) -> None:
    with pytest.raises(UnknownName):
        find_gpu(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((name, "tensor cores") for name in ("gtx1660", "NVIDIA GeForce GTX 1660 Ti", "GTX-1080ti", "1660 super")),
        *((name, "tensor cores") for name in ("GT 1030", "MX450", "Tesla P100-PCIE-16GB", "Tesla P4", "Quadro P2000")),
        *((name, "SM 7.0") for name in ("V100", "Tesla V100-SXM2-16GB", "NVIDIA TITAN V", "Quadro GV100")),
    ],
)
def test_older_gpus_are_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_gpu(name)
    assert not isinstance(caught.value, UnknownName)
    assert repr(name) in caught.value.what
    assert reason in caught.value.got
    assert "7.5" in caught.value.expected
