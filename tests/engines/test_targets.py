"""Which targets the named GPUs need."""

from __future__ import annotations

import dataclasses
import platform

import pytest

from sdxl_trt.engines.targets import check_vae, resolve_targets
from sdxl_trt.errors import UnknownName, UsageError
from sdxl_trt.spec import ModelSpec

CPU = f"onnxruntime-{platform.machine()}"


@pytest.mark.parametrize(
    ("gpus", "flavour", "names"),
    [
        (["cpu"], None, [CPU]),
        (["CPU ", "cpu"], None, [CPU]),
        (["rtx3060"], None, ["tensorrt-rtx-sm86"]),
        (["RTX 3060", "rtx3090"], None, ["tensorrt-rtx-sm86"]),
        (["rtx4090", "rtx3060", "rtx3090"], None, ["tensorrt-rtx-sm86-sm89"]),
        (["h100"], None, ["tensorrt-sm90"]),
        (["h100", "a100", "h200"], None, ["tensorrt-sm80", "tensorrt-sm90"]),
        (["rtx4090", "cpu", "h100"], None, ["tensorrt-rtx-sm89", CPU, "tensorrt-sm90"]),
        (["rtx3060", "rtx4090"], "tensorrt", ["tensorrt-sm86", "tensorrt-sm89"]),
        (["a10", "l40s"], "tensorrt-rtx", ["tensorrt-rtx-sm86-sm89"]),
        (["h200", "rtx3060"], "onnxruntime-cuda", [CPU.replace("onnxruntime", "onnxruntime-cuda")]),
        (["Portable"], None, ["tensorrt-rtx-portable"]),
        (["portable", "rtx4090", "cpu", "rtx3060"], None, ["tensorrt-rtx-sm86-sm89", "tensorrt-rtx-portable", CPU]),
        (["rtx4090", "rtx2080", "rtx3060"], None, ["tensorrt-rtx-sm75", "tensorrt-rtx-sm86-sm89"]),
    ],
)
def test_targets(gpus: list[str], flavour: str | None, names: list[str]) -> None:
    assert [request.name for request in resolve_targets(gpus, flavour)] == names


def test_precision_comes_with_the_flavour() -> None:
    precisions = {r.flavour.name: r.flavour.precision for r in resolve_targets(["cpu", "rtx3060", "h100"])}
    assert precisions == {"onnxruntime": "float32", "tensorrt-rtx": "float16", "tensorrt": "float16"}


@pytest.mark.parametrize(
    ("gpus", "flavour", "able"),
    [
        (["h100"], "tensorrt-rtx", "tensorrt or onnxruntime-cuda for"),
        (["b200"], "tensorrt-rtx", "tensorrt or onnxruntime-cuda for"),
        (["rtx3060"], "onnxruntime", "tensorrt or tensorrt-rtx or onnxruntime-cuda for"),
        (["cpu"], "tensorrt", "onnxruntime for"),
        (["rtx3060", "cpu"], "tensorrt-rtx", "onnxruntime for"),
        (["portable"], "tensorrt", "tensorrt-rtx for"),
    ],
)
def test_flavour_that_cannot_serve_a_gpu_is_refused(gpus: list[str], flavour: str, able: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_targets(gpus, flavour)
    assert flavour in caught.value.got
    assert caught.value.expected.startswith(able)
    assert caught.value.fix.split(",")[0].removeprefix("--flavour ") in caught.value.expected


def test_weight_streaming_changes_the_flags_of_steps_alone() -> None:
    rtx, trt = resolve_targets(["rtx3060", "h100"], weight_streaming=True)
    assert rtx.flags("step") == ("-TF32", "+WEIGHT_STREAMING")  # excludes REQUIRE_USER_ALLOCATION
    assert rtx.flags("vae_decoder") == ("-TF32", "+REQUIRE_USER_ALLOCATION")
    assert trt.flags("step") == ("-TF32", "+WEIGHT_STREAMING")
    assert (trt.streams("step"), trt.streams("vae_decoder")) == (True, False)
    assert not resolve_targets(["h100"])[0].streams("step")


@pytest.mark.parametrize(("gpu", "flavour"), [("cpu", None), ("h200", "onnxruntime-cuda")])
def test_weight_streaming_that_a_flavour_lacks_is_refused(gpu: str, flavour: str | None) -> None:
    with pytest.raises(UsageError, match="has no weight streaming") as caught:
        resolve_targets([gpu], flavour, weight_streaming=True)
    assert caught.value.expected == "tensorrt or tensorrt-rtx"


def test_a_float32_vae_is_refused_for_turing_alone(toy_model: ModelSpec) -> None:
    """What the library says of it comes after the step's minutes: tests/spine/test_gpus.py."""
    assert toy_model.vae.force_upcast
    with pytest.raises(UsageError, match="cannot build this model's VAE for SM") as caught:
        check_vae(resolve_targets(["rtx3060", "rtx2080"]), toy_model)
    assert caught.value.fix.startswith("--vae FOLDER")
    half = dataclasses.replace(toy_model, vae=dataclasses.replace(toy_model.vae, force_upcast=False))
    check_vae(resolve_targets(["rtx2080"]), half)
    for other in (resolve_targets(["rtx3060", "portable"]), resolve_targets(["rtx2080"], "onnxruntime-cuda")):
        check_vae(other, toy_model)


def test_unknown_names() -> None:
    with pytest.raises(UnknownName, match="did you mean rtx4090") as caught:
        resolve_targets(["rtx4091"])
    assert "--gpu portable" in caught.value.fix
    with pytest.raises(UnknownName, match="did you mean tensorrt-rtx"):
        resolve_targets(["rtx4090"], "tensorrt-rxt")
    with pytest.raises(UsageError, match="no target"):
        resolve_targets([])
