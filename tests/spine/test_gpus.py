"""The GPU catalogue: its figures against arithmetic they must agree with, its names, and what it refuses."""

from __future__ import annotations

import pytest

from sdxl_trt.decode import DecodeError
from sdxl_trt.errors import UnknownName
from sdxl_trt.gpus import RTX_SMS, find_gpu, load_gpus, parse_gpus

UNET_ROW_TFLOP, VAE_DECODE_TFLOP = 6.761, 10.470  # SDXL at 1024×1024, counted from the layers' shapes
PICTURE_TFLOP = 30 * 2 * UNET_ROW_TFLOP + VAE_DECODE_TFLOP  # 30 steps with guidance: two rows each

ROW = """
[rtx1]
name = "NVIDIA GeForce RTX 1"
sm = 86
architecture = "Ampere"
form = "geforce"
memory_gb = 12
bandwidth_gb_s = 360.0
fp16_fp32acc_tflops = 25.5
fp16_fp16acc_tflops = 51.0
source = "a datasheet"
"""


@pytest.mark.parametrize(
    ("key", "seconds_fp32acc", "seconds_fp16acc"),
    [
        ("rtx3060", 16.3, 8.1),
        ("rtx3090", 5.9, 2.9),
        ("rtx4090", 2.5, 1.26),
        ("a100", 1.33, 1.33),
        ("h100", 0.42, 0.42),
        ("h200", 0.42, 0.42),
    ],
)
def test_shortest_time_for_a_picture(key: str, seconds_fp32acc: float, seconds_fp16acc: float) -> None:
    """Floors that were computed once, elsewhere: a sparse figure in the catalogue would halve one."""
    gpu = find_gpu(key)
    for rate, required in (
        (gpu.fp16_fp32acc_tflops, seconds_fp32acc),
        (gpu.fp16_fp16acc_tflops, seconds_fp16acc),
    ):
        measured = PICTURE_TFLOP / rate
        print(f"{key}: {measured:.3f} s, required {required} s within 3 %")
        assert measured == pytest.approx(required, rel=0.03)


def test_rates_of_one_gpu_agree_with_each_other() -> None:
    """Halving the width doubles the rate on every tensor core here: int8 is twice fp16, fp8 twice fp16 too, each with
    the same accumulator. Turing to Ampere have no fp8. A figure with sparsity in one column breaks this."""
    for gpu in load_gpus().values():
        assert gpu.int8_tops == pytest.approx(2 * gpu.fp16_fp16acc_tflops, rel=0.03), gpu.key
        assert (gpu.fp8_tflops is not None) == (gpu.sm >= 89), gpu.key
        if gpu.fp8_tflops is not None:
            assert gpu.fp8_tflops == pytest.approx(2 * gpu.fp16_fp32acc_tflops, rel=0.03), gpu.key
        half_rate = 2 if gpu.form == "geforce" else 1
        assert gpu.fp16_fp16acc_tflops == pytest.approx(half_rate * gpu.fp16_fp32acc_tflops, rel=0.01), gpu.key


def test_catalogue_names_the_gpus_of_the_published_speeds() -> None:
    expected = {"rtx3060", "rtx3090", "rtx4090", "a10", "a100", "a800", "h100", "h200", "b200", "l40s"}
    assert expected <= load_gpus().keys()
    assert "cpu" not in load_gpus()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("rtx3060", "rtx3060"),
        ("NVIDIA GeForce RTX 3060", "rtx3060"),
        ("RTX-3060", "rtx3060"),
        (" geforce_rtx_4090 ", "rtx4090"),
        ("NVIDIA A10", "a10"),
        ("A100", "a100"),
        ("L40S", "l40s"),
    ],
)
def test_finds_a_gpu_however_it_is_written(name: str, key: str) -> None:
    assert find_gpu(name).key == key


def test_every_key_and_name_shown_is_found_again() -> None:
    for key, gpu in load_gpus().items():
        assert gpu.key == key
        assert find_gpu(key) == find_gpu(gpu.name) == gpu


def test_unknown_gpu_suggests_and_lists() -> None:
    with pytest.raises(UnknownName) as caught:
        find_gpu("rtx3O60")
    assert "unknown GPU 'rtx3O60': did you mean rtx3060?" in str(caught.value)
    assert caught.value.expected.split(", ") == [*load_gpus(), "cpu"]
    assert "sdxl-trt gpus" in caught.value.fix


@pytest.mark.parametrize("name", ["", "nvidia", "a", "rtx306", "rtx30600", "rtx3060 laptop gpu"])
def test_a_part_of_a_name_is_not_the_name(name: str) -> None:
    with pytest.raises(UnknownName):
        find_gpu(name)


@pytest.mark.parametrize(
    ("key", "flavour"),
    [("rtx3060", "tensorrt-rtx"), ("rtx4090", "tensorrt-rtx"), ("a10", "tensorrt"), ("h100", "tensorrt")],
)
def test_default_flavour(key: str, flavour: str) -> None:
    """The A10 is of an SM that both flavours serve; it is a data-centre GPU all the same."""
    assert find_gpu(key).default_flavour == flavour


def test_geforce_below_turing_does_not_get_the_rtx_flavour() -> None:
    assert parse_gpus(ROW)["rtx1"].default_flavour == "tensorrt-rtx"
    assert parse_gpus(ROW.replace("sm = 86", "sm = 61"))["rtx1"].default_flavour == "tensorrt"


def test_rtx_sms_are_those_of_the_library() -> None:
    tensorrt_rtx = pytest.importorskip("tensorrt_rtx")
    members = tensorrt_rtx.ComputeCapability.__members__
    assert sorted(int(name.removeprefix("SM")) for name in members if name.startswith("SM")) == list(RTX_SMS)


def test_a_rate_the_hardware_lacks_is_none() -> None:
    gpu = parse_gpus(ROW)["rtx1"]
    assert (gpu.fp8_tflops, gpu.int8_tops, gpu.note) == (None, None, "")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("sm = 86", "", "rtx1: field 'sm' is missing"),
        ("sm = 86", "sm = 8.6", "rtx1.sm: 8.6 is not int"),
        ("sm = 86", "sm = 0", "sm is 0, not positive"),
        ("sm = 86", "sm = 86\nwatts = 170", "unknown field 'watts'"),
        ("sm = 86", 'sm = 86\nkey = "rtx2"', "not a table without a field 'key'"),
        ("[rtx1]", "rtx0 = 1\n[rtx1]", "rtx0: not a table"),
        ("[rtx1]", '["RTX 1"]', "a key is lower case"),
        ('form = "geforce"', 'form = "mobile"', "form 'mobile' is none of geforce, datacenter"),
        ('source = "a datasheet"', 'source = ""', "source is empty"),
        ("bandwidth_gb_s = 360.0", "bandwidth_gb_s = inf", "not finite"),
        ("fp16_fp16acc_tflops = 51.0", "fp16_fp16acc_tflops = 12.0", "swapped?"),
        ("fp16_fp16acc_tflops = 51.0", "fp16_fp16acc_tflops = 51.0\nfp8_tflops = -1.0", "fp8_tflops is -1.0"),
    ],
)
def test_refuses_a_catalogue_that_is_wrong(old: str, new: str, says: str) -> None:
    assert old in ROW
    with pytest.raises(DecodeError) as caught:
        parse_gpus(ROW.replace(old, new))
    assert says in str(caught.value)
