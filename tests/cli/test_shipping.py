"""`sdxl-trt ship push`, `ship pull`, and `run --bundle` of what is pulled first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shipped import EXACT, PORTABLE, PROCESSOR, make_bundle

from benchmarks.oci_registry import Missing, registry


def test_push_and_pull(sdxl_trt: Callable[..., Any], tmp_path: Path) -> None:
    make_bundle(tmp_path / "home/built")
    pushed = sdxl_trt("ship", "push", tmp_path / "home/built", "oci-layout:layout", "--json")
    assert pushed.status == 0
    assert pushed.json["reference"] == "oci-layout:layout:latest"
    assert pushed.json["targets"] == [EXACT, PORTABLE, PROCESSOR]
    again = sdxl_trt("ship", "push", tmp_path / "home/built", "oci-layout:layout")
    assert "sent 0 files, 0 bytes" in again.out
    pulled = sdxl_trt("ship", "pull", "oci-layout:layout", "--gpu", "rtx4090", "--json").json
    assert pulled["target"] == EXACT
    assert pulled["reason"] == "it was built for SM 89 itself"
    assert pulled["others"][PROCESSOR].startswith("needs onnxruntime")
    assert Path(pulled["bundle"]).parent == tmp_path / "data/sdxl-trt/bundles"
    told = sdxl_trt("ship", "pull", "oci-layout:layout", "--gpu", "rtx3060", "-o", "other").out
    assert f"target {PORTABLE}: it is portable, and nothing was built for SM 86 itself" in told
    assert f"not {EXACT}: built for SM 89, this host has SM 86" in told


def test_this_host(sdxl_trt: Callable[..., Any], tmp_path: Path) -> None:
    make_bundle(tmp_path / "home/built")
    sdxl_trt("ship", "push", tmp_path / "home/built", "a.tar")
    pulled = sdxl_trt("ship", "pull", "a.tar", "-o", "pulled", "--json")
    assert pulled.status == 0
    assert pulled.json["target"] == PROCESSOR


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (("push", "built", "nowhere"), 2, "no place that a bundle can be shipped"),
        (("push", "absent", "a.tar"), 1, "is not a bundle"),
        (("pull", "oci://127.0.0.1:9/x"), 1, "cannot be reached"),
        (("pull", "absent.tar"), 1, "cannot be used"),
        (("pull", "oci-layout:absent"), 1, "there is no"),
        (("pull", "a.tar", "--gpu", "gtx9999"), 2, "GPU"),
    ],
)
def test_what_is_refused(
    sdxl_trt: Callable[..., Any], tmp_path: Path, arguments: tuple[str, ...], status: int, reason: str
) -> None:
    make_bundle(tmp_path / "built", size=40_000)
    sdxl_trt("ship", "push", "built", "a.tar")
    found = sdxl_trt("ship", *arguments)
    assert found.status == status
    assert reason in found.err
    assert "Traceback" not in found.err


def test_run_pulls_first(sdxl_trt: Callable[..., Any], demo_bundle: Path, tmp_path: Path) -> None:
    """What the registry has is fetched once; without the registry what is here does, and that is said."""
    picture = (
        "run",
        "a red circle",
        "--size",
        "64x64",
        "--steps",
        "2",
        "--seed",
        "7",
        "-o",
        "out.png",
        "--threads",
        "1",
    )
    try:
        with registry(tmp_path / "registry") as own:
            reference = own.oci("team/demo:1")
            assert sdxl_trt("ship", "push", demo_bundle, reference).status == 0
            first = sdxl_trt(*picture, "--bundle", reference)
            assert first.status == 0, first.err
            assert "it runs on any" in first.err
            before = (tmp_path / "out.png").read_bytes()
            second = sdxl_trt(*picture, "--bundle", reference)
            assert "fetched" not in second.err
    except Missing as error:
        pytest.skip(str(error))
    third = sdxl_trt(*picture, "--bundle", reference)
    assert third.status == 0
    assert "using what was pulled before" in third.err
    assert (tmp_path / "out.png").read_bytes() == before
    other = sdxl_trt(*picture, "--bundle", "oci://127.0.0.1:9/other")
    assert other.status == 1
    assert "cannot be reached" in other.err
