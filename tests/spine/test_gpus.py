"""The GPU catalogue: its figures against printed ones, its SMs against TensorRT for RTX, its names, what it refuses."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from sdxl_trt.cli.info import gpus_command
from sdxl_trt.decode import DecodeError, decode
from sdxl_trt.gpus import ARCHITECTURES, FORMS, RTX_SMS, find_gpu, load_gpus, parse_gpus, parse_sources
from sdxl_trt.gpus.catalogue import FILES, Row, Series

UNET_ROW_TFLOP, VAE_DECODE_TFLOP = 6.761, 10.470  # SDXL at 1024×1024, counted from the layers' shapes
PICTURE_TFLOP = 30 * 2 * UNET_ROW_TFLOP + VAE_DECODE_TFLOP  # 30 steps with guidance: two rows each

ROW = """
[rtx]
title = "RTX"
brand = "NVIDIA"
form = "geforce"
sm = 86
sources = ["sheet"]
[rtx.gpus.rtx1]
name = "RTX 1"
memory_gb = 12
sms = 28
boost_mhz = 1777
bus_bits = 192
gbit_s = 15.0
"""
SOURCES = parse_sources('[sheet]\ntitle = "A datasheet"\nplace = "a shelf"\nseen = "opened"')

# As vendors print them, dense: (fp16 accumulated in fp32, in fp16, fp8, int8, GB/s); None where the page has none.
# The fifth column of comments says what was seen of the page when this was written (see sources.toml).
PRINTED: dict[str, tuple[float | None, float | None, float | None, float | None, float | None]] = {
    "rtx2080ti": (53.8, 107.6, None, 215.2, 616),  # Turing In-Depth, opened
    "quadrortx6000": (130.5, 130.5, None, 261.0, 672),  # Turing In-Depth, opened
    "rtx2080": (40.3, 80.5, None, 161.1, 448),  # Turing whitepaper, memory
    "rtx2070": (29.9, 59.7, None, 119.4, 448),  # Turing whitepaper, memory
    "quadrortx5000": (89.2, 89.2, None, None, 448),  # Turing whitepaper, memory
    "t4": (65, None, None, 130, 320),  # T4 datasheet, memory
    "a100": (312, 312, None, 624, 2039),  # Ampere In-Depth, opened
    "a30": (165, 165, None, 330, 933),  # A30 datasheet, memory
    "rtx3090": (71, 142, None, 284, 936),  # GA102 whitepaper, quoted
    "rtx3080": (59.5, 119, None, 238, 760),  # GA102 whitepaper, memory
    "rtx3070": (40.6, 81.3, None, 162.6, 448),  # GA102 whitepaper, memory
    "rtxa6000": (154.8, 154.8, None, 309.7, 768),  # GA102 whitepaper, memory
    "a40": (149.7, 149.7, None, 299.3, 696),  # A40 datasheet, opened as a reprint
    "a10": (125, 125, None, 250, 600),  # A10 datasheet, memory
    "a10g": (70, None, None, 140, 600),  # A10G datasheet, memory
    "a2": (18, None, None, 36, 200),  # A2 datasheet, memory
    "rtx4090": (165.2, 330.3, 330.3, 660.6, 1008),  # Ada whitepaper, quoted
    "rtx4080": (97.5, 194.9, 194.9, 389.9, 716.8),  # Ada whitepaper, memory
    "rtx4080-laptop": (None, None, None, 542 / 2, None),  # AI TOPS, int8 with sparsity, opened
    "rtx4070-laptop": (None, None, None, 321 / 2, None),  # the same
    "rtx4060-laptop": (None, None, None, 233 / 2, None),  # the same
    "rtx4050-laptop": (None, None, None, 194 / 2, None),  # the same
    "rtx6000ada": (None, None, 1457 / 2, None, 960),  # datasheet, with sparsity, memory
    "rtx5000ada": (None, None, 1044.4 / 2, None, 576),  # datasheet, with sparsity, memory
    "rtx2000ada": (None, None, 191.9 / 2, None, None),  # datasheet, with sparsity, memory
    "l4": (121, None, 242.5, 242.5, 300),  # L4 datasheet, with sparsity, memory
    "l40": (181.05, None, 362, 362, 864),  # L40 datasheet, opened as a reprint
    "l40s": (362.05, None, 733, None, 864),  # L40S datasheet, opened as a reprint
    "h100": (989.4, 989.4, 1978.9, 1978.9, 3350),  # H100 whitepaper, quoted
    "h100-pcie": (756, None, 1513, 1513, None),  # H100 whitepaper, quoted
    "h200": (1979 / 2, None, 3958 / 2, 3958 / 2, 4800),  # H200 page, with sparsity, memory
    "h800": (990, None, None, None, 3350),  # FlashMLA issue, opened
    "h20": (148, None, None, 296, 4000),  # second-hand, opened
    "b200": (4500 / 2, None, 9000 / 2, 9000 / 2, 7700),  # Blackwell datasheet, with sparsity, quoted
    "rtx5090": (209.5, 419, 419, 838, 1792),  # RTX Blackwell whitepaper, quoted
    "rtx5080": (112.6, 225.1, 225.1, 450.2, 960),  # RTX Blackwell whitepaper, memory
    "rtx5070ti": (87.9, 175.8, 175.8, 351.5, 896),  # RTX Blackwell whitepaper, memory
    "rtxpro6000": (503.8, 503.8, 1007.6, 1007.6, 1792),  # HMC Tech, opened
    "rtxpro6000-maxq": (None, None, None, 3511 / 4, 1792),  # AI TOPS, fp4 with sparsity, memory
    "jetson-agx-orin": (None, None, None, 170 / 2, 204.8),  # the GPU's part, with sparsity, memory
    "jetson-thor": (None, None, None, None, 273),  # forum and TechPowerUp, opened
}


@pytest.mark.parametrize("key", PRINTED)
def test_computed_figures_are_the_printed_ones(key: str) -> None:
    gpu = load_gpus()[key]
    measured = (
        gpu.fp16_fp32acc_tflops,
        gpu.fp16_fp16acc_tflops,
        gpu.fp8_tflops,
        gpu.int8_tops,
        gpu.bandwidth_gb_s,
    )
    print(f"{key}: {measured}, printed {PRINTED[key]}, required within 1.5 %")
    for ours, printed in zip(measured, PRINTED[key], strict=True):
        if printed is not None:
            assert ours == pytest.approx(printed, rel=0.015)


def test_orin_nano_at_the_clock_of_its_datasheet() -> None:
    """20 dense int8 TOPS at 625 MHz for 8 SMs (opened): what says that Orin's SMs do what the A100's do."""
    assert 8 * ARCHITECTURES[87].fma * 2 * 2 * 625e6 == pytest.approx(20e12, rel=0.03)


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
    """Halving the width doubles the rate; GeForce accumulates in fp32 at half rate; Turing to Ampere have no fp8.
    Blackwell Ultra gave its int8 units up, and for Thor's nothing is published."""
    for gpu in load_gpus().values():
        if gpu.sm == 103:
            assert gpu.int8_tops is not None
            assert gpu.int8_tops < gpu.fp16_fp16acc_tflops / 10, gpu.key
        elif gpu.sm == 110:
            assert gpu.int8_tops is None
        else:
            assert gpu.int8_tops == pytest.approx(2 * gpu.fp16_fp16acc_tflops, rel=0.01), gpu.key
        assert (gpu.fp8_tflops is not None) == (gpu.sm >= 89), gpu.key
        if gpu.fp8_tflops is not None:
            assert gpu.fp8_tflops == pytest.approx(2 * gpu.fp16_fp32acc_tflops, rel=0.01), gpu.key
        half_rate = 2 if gpu.form in ("geforce", "laptop") else 1
        assert gpu.fp16_fp16acc_tflops == pytest.approx(half_rate * gpu.fp16_fp32acc_tflops, rel=0.01), gpu.key


def rows() -> dict[str, tuple[Series, Row]]:
    texts = [resources.files("sdxl_trt.gpus").joinpath(file).read_text(encoding="utf-8") for file in FILES]
    series = [decode(Series, table) for text in texts for table in tomllib.loads(text).values()]
    return {key: (one, row) for one in series for key, row in one.gpus.items()}


def test_memory_fits_the_bus() -> None:
    """A memory chip has a bus of 32 bits and 1, 2 or 3 GB; two may share one bus."""
    cards = {key: row for key, (series, row) in rows().items() if row.bus_bits and series.form != "soc"}
    assert len(cards) > 80
    for key, row in cards.items():
        assert row.bus_bits is not None
        assert row.gbit_s is not None
        assert row.memory_gb * 32 / row.bus_bits in (1, 2, 3, 4, 6), key
        assert 10 <= row.gbit_s <= 30, key


def test_chips_and_clocks_are_plausible() -> None:
    for gpu in load_gpus().values():
        assert 8 <= gpu.sms <= 192, gpu.key
        assert gpu.boost_mhz is None or 700 <= gpu.boost_mhz <= 2700, gpu.key
        assert (gpu.boost_mhz is None) == gpu.derivation.startswith("fp16 as the vendor prints it"), gpu.key


@pytest.mark.parametrize(("better", "suffix"), [("ti", ""), ("super", ""), ("tisuper", "ti"), ("ti", "super")])
@pytest.mark.parametrize("place", ["", "-laptop"])
def test_ti_and_super_are_no_slower(better: str, suffix: str, place: str) -> None:
    """Within a generation; the RTX 4070 Ti is above the RTX 4070 Super too."""
    gpus = load_gpus()
    pairs = 0
    for number in (f"rtx{series}0{model}0" for series in "2345" for model in "56789"):
        one, other = gpus.get(f"{number}{better}{place}"), gpus.get(f"{number}{suffix}{place}")
        if one and other:
            pairs += 1
            assert one.fp16_fp32acc_tflops > other.fp16_fp32acc_tflops, (one.key, other.key)
            assert one.bandwidth_gb_s >= other.bandwidth_gb_s, (one.key, other.key)
    assert pairs or place, "nothing was compared"


def test_laptops_are_slower_than_the_cards_of_their_name() -> None:
    gpus = load_gpus()
    names = [key.removesuffix("-laptop") for key in gpus if key.endswith("-laptop")]
    pairs = [(gpus[f"{name}-laptop"], gpus[name]) for name in names if name in gpus]
    faster = {laptop.key for laptop, card in pairs if laptop.fp16_fp32acc_tflops > card.fp16_fp32acc_tflops}
    assert len(pairs) > 20
    assert faster == {"rtx3060-laptop", "rtx5050-laptop"}, "30 SMs beside 28; 90 MHz more, as NVIDIA prints it"


def test_every_compute_capability_is_one_of_the_catalogue() -> None:
    assert {gpu.sm for gpu in load_gpus().values()} == set(ARCHITECTURES)
    assert {gpu.form for gpu in load_gpus().values()} == set(FORMS)


def test_rtx_sms_are_those_of_the_library() -> None:
    tensorrt_rtx = pytest.importorskip("tensorrt_rtx")
    members = tensorrt_rtx.ComputeCapability.__members__
    assert sorted(int(name.removeprefix("SM")) for name in members if name.startswith("SM")) == list(RTX_SMS)
    assert set(RTX_SMS) < set(ARCHITECTURES)


def build(sm: int | None, dtype: type, node: str) -> tuple[int, str]:
    """Compile a network of one node for a compute capability: bytes of the plan (0: refused), and what was logged.

    None: for no compute capability in particular.
    """
    trt: Any = pytest.importorskip("tensorrt_rtx")
    from onnx import helper, numpy_helper, parser

    from sdxl_trt.libraries import error_log

    log = error_log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    weights = np.ones((8, 8) if "MatMul" in node else (4, 4, 3, 3), dtype)
    graph = helper.make_graph(
        [parser.parse_node(node)],
        "one",
        [helper.make_tensor_value_info("x", kind, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    assert trt.OnnxParser(network, log).parse(model.SerializeToString())
    config = builder.create_builder_config()
    if sm:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{sm}"), 0)
    plan = builder.build_serialized_network(network, config)
    return (plan.nbytes if plan else 0), " ".join(log.errors)


CONVOLUTION, PRODUCT = "y = Conv <pads = [1, 1, 1, 1]> (x, w)", "y = MatMul(x, w)"


@pytest.mark.parametrize("sm", sorted(ARCHITECTURES))
def test_tensorrt_rtx_builds_for_the_sms_that_the_catalogue_says(sm: int) -> None:
    tensorrt_rtx = pytest.importorskip("tensorrt_rtx")
    if sm not in RTX_SMS:
        assert not hasattr(tensorrt_rtx.ComputeCapability, f"SM{sm}")
        return
    for node in (CONVOLUTION, PRODUCT):
        size, errors = build(sm, np.float16, node)
        print(f"SM {sm}: {node.split('(')[0]}, {size} bytes {errors}")
        assert size > 1000


@pytest.mark.parametrize("sm", [*RTX_SMS, None])
def test_fp32_products_are_refused_for_turing_alone(sm: int | None) -> None:
    """What the limit of SM 7.5 says; convolutions in fp32 are built. So portable plans leave Turing out."""
    size, errors = build(sm, np.float32, PRODUCT)
    assert bool(size) == (sm != 75)
    assert ("FP32 GEMM is not supported" in errors) == (sm == 75)
    assert build(sm, np.float32, CONVOLUTION)[0] > 1000


@pytest.mark.parametrize(
    ("key", "flavour"),
    [
        *((key, "tensorrt-rtx") for key in ("rtx2060", "rtx3060", "rtx4090", "rtx5090-laptop", "rtxa6000")),
        *((key, "tensorrt") for key in ("t4", "a10", "h100", "b300", "rtxpro6000-server", "jetson-orin-nano", "spark")),
    ],
)
def test_default_flavour(key: str, flavour: str) -> None:
    """The A10 is of an SM that both flavours serve; it is a data-centre GPU all the same."""
    assert find_gpu(key).default_flavour == flavour


def test_limits_say_what_cannot_be_done() -> None:
    for gpu in load_gpus().values():
        text = " ".join(gpu.limits)
        assert ("does not build for it" in text) == (gpu.sm not in RTX_SMS), gpu.key
        assert ("fp32 matrix product" in text) == (gpu.sm == 75), gpu.key
        assert ("shared" in text) == ("aarch64" in text) == (gpu.form == "soc"), gpu.key
    assert find_gpu("rtx3060").limits == ()
    assert "JetPack" in find_gpu("jetson-agx-orin").limits[-1]
    assert "can be built on any host" in find_gpu("spark").limits[-1]


def test_sources_say_what_was_seen() -> None:
    text = resources.files("sdxl_trt.gpus").joinpath("sources.toml").read_text(encoding="utf-8")
    gpus = load_gpus().values()
    for source in parse_sources(text).values():
        assert any(str(source) in gpu.source for gpu in gpus), f"no GPU cites {source}"
    for gpu in gpus:
        assert "(opened)" in gpu.source, gpu.key
        assert set(gpu.from_memory) < set(Row.__dataclass_fields__), gpu.key


def test_the_command_fits_a_terminal_and_shows_everything() -> None:
    shown = CliRunner().invoke(gpus_command, [])
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert max(map(len, lines)) <= 100
    starts = [line.split()[0] for line in lines if line.strip()]
    assert [start for start in starts if start in load_gpus()] == list(load_gpus())
    objects = json.loads(CliRunner().invoke(gpus_command, ["--json"]).output)["gpus"]
    assert [one["key"] for one in objects] == list(load_gpus())
    assert objects[0].keys() >= {"name", "sm", "source", "from_memory", "derivation", "default_flavour", "limits"}


def test_what_follows_from_a_row() -> None:
    gpu = parse_gpus(ROW, SOURCES)["rtx1"]
    assert (gpu.fp16_fp16acc_tflops, gpu.fp16_fp32acc_tflops, gpu.int8_tops) == (50.95, 25.48, 101.9)
    assert (gpu.bandwidth_gb_s, gpu.fp8_tflops, gpu.note) == (360.0, None, "")
    assert gpu.derivation == "28 SMs x 512 FMA x 2 x 1.777 GHz, half of it with fp32 accumulation"
    assert gpu.source == "A datasheet, a shelf (opened)"
    held = parse_gpus(ROW.replace("sms = 28", "sms = 28\ntensor_rate = 0.5"), SOURCES)["rtx1"]
    assert held.fp16_fp16acc_tflops == pytest.approx(gpu.fp16_fp16acc_tflops / 2, rel=1e-3)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("sm = 86", "", "rtx: field 'sm' is missing"),
        ("sm = 86", "sm = 8.6", "rtx.sm: 8.6 is not int"),
        ("sm = 86", "sm = 61", "sm 61 is none of 75, 80"),
        ("sms = 28", "sms = 0", "rtx.rtx1: sms is 0, not positive"),
        ("sms = 28", "sms = 28\nwatts = 170", "unknown field 'watts'"),
        ("[rtx.gpus.rtx1]", '[rtx.gpus."RTX 1"]', "a key is lower case"),
        ('form = "geforce"', 'form = "mobile"', "form 'mobile' is none of geforce, laptop"),
        ('sources = ["sheet"]', 'sources = ["shet"]', "unknown source 'shet'"),
        ('sources = ["sheet"]', "sources = []", "source is empty"),
        ("gbit_s = 15.0", "", "give either bus_bits and gbit_s or bandwidth_gb_s"),
        ("gbit_s = 15.0", "gbit_s = 15.0\nbandwidth_gb_s = 360.0", "give either bus_bits and gbit_s or bandwidth_gb_s"),
        ("gbit_s = 15.0", "gbit_s = inf", "not finite"),
        ("boost_mhz = 1777", "", "give either boost_mhz or fp16_tflops"),
        ("boost_mhz = 1777", "boost_mhz = 1777\ntensor_rate = 2.0", "tensor_rate is 2.0"),
        ("boost_mhz = 1777", 'boost_mhz = 1777\nfrom_memory = ["bost"]', "from_memory names 'bost'"),
        ("boost_mhz = 1777", "boost_mhz = 1777\nint8_tops = -1.0", "int8_tops is -1.0"),
    ],
)
def test_refuses_a_catalogue_that_is_wrong(old: str, new: str, says: str) -> None:
    assert old in ROW
    with pytest.raises(DecodeError) as caught:
        parse_gpus(ROW.replace(old, new), SOURCES)
    assert says in str(caught.value)


def test_refuses_a_key_that_stands_twice_and_a_source_of_unknown_kind() -> None:
    with pytest.raises(DecodeError, match="stands in another series too"):
        parse_gpus(ROW + ROW.replace("[rtx", "[other"), SOURCES)
    with pytest.raises(DecodeError, match="seen 'read' is none of opened, quoted, memory"):
        parse_sources('[sheet]\ntitle = "A"\nplace = "B"\nseen = "read"')
