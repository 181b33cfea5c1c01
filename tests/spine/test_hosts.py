"""Which target of a bundle a host gets, and what it is told where it gets none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from manifests import make_manifest, make_target, put_placeholders

from sdxl_trt.bundle import Host, Target, choose_target
from sdxl_trt.errors import NoTargetForHost

RTX_3060 = Host(processor="x86_64", flavours={"tensorrt-rtx": "1.7.1.116", "onnxruntime": "1.31.1"}, sm=86)
EXACT = make_target("exact", flavour="tensorrt-rtx", flavour_version="1.7.1.116", sms=(86, 89))
PORTABLE = make_target("portable", flavour="tensorrt-rtx", flavour_version="1.7.1.116")
CPU = make_target("cpu")


@pytest.mark.parametrize(
    ("targets", "host", "chosen"),
    [
        ([CPU, PORTABLE, EXACT], RTX_3060, EXACT),
        ([CPU, PORTABLE], RTX_3060, PORTABLE),
        ([CPU], RTX_3060, CPU),
        ([CPU, EXACT], dataclasses.replace(RTX_3060, sm=None), CPU),
        ([CPU, EXACT], dataclasses.replace(RTX_3060, sm=75), CPU),
        ([CPU, PORTABLE], dataclasses.replace(RTX_3060, sm=75), CPU),
        ([CPU, EXACT], dataclasses.replace(RTX_3060, flavours={"onnxruntime": "1.32.0"}), CPU),
    ],
)
def test_best_target_is_chosen(targets: list[Target], host: Host, chosen: Target, tmp_path: Path) -> None:
    put_placeholders(tmp_path, *targets)
    assert choose_target(make_manifest(*targets), host, tmp_path) is chosen


@pytest.mark.parametrize(
    ("target", "host", "reason"),
    [
        (EXACT, dataclasses.replace(RTX_3060, sm=75), "built for SM 86, SM 89, this host has SM 75"),
        (EXACT, dataclasses.replace(RTX_3060, sm=None), "this host has no NVIDIA GPU"),
        (PORTABLE, dataclasses.replace(RTX_3060, sm=None), "this host has no NVIDIA GPU"),
        (PORTABLE, dataclasses.replace(RTX_3060, sm=75), "SM 121, this host has SM 75"),
        (PORTABLE, dataclasses.replace(RTX_3060, sm=90), "SM 121, this host has SM 90"),
        (EXACT, dataclasses.replace(RTX_3060, flavours={}), "needs tensorrt-rtx 1.7.1.116"),
        (
            EXACT,
            dataclasses.replace(RTX_3060, flavours={"tensorrt-rtx": "1.8.0.1"}),
            "built with tensorrt-rtx 1.7.1.116, this host has 1.8.0.1",
        ),
        (CPU, dataclasses.replace(RTX_3060, processor="aarch64"), "built for a x86_64 processor"),
        (
            CPU,
            dataclasses.replace(RTX_3060, flavours={"onnxruntime": "1.30.0"}),
            "built with onnxruntime 1.31.1, this host has 1.30.0",
        ),
    ],
)
def test_refusal_says_what_differs(target: Target, host: Host, reason: str, tmp_path: Path) -> None:
    with pytest.raises(NoTargetForHost) as caught:
        choose_target(make_manifest(target), host, tmp_path)
    assert caught.value.got.startswith(f"{target.name}: ")
    assert reason in caught.value.got
    assert caught.value.fix.startswith("sdxl-trt build")


def test_bundle_without_targets(tmp_path: Path) -> None:
    with pytest.raises(NoTargetForHost, match="no target at all"):
        choose_target(make_manifest(), RTX_3060, tmp_path)
