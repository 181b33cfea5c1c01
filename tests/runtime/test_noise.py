"""TorchGenerator against torch's CPU generator, float32, one generator on each side seeded alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime.noise import PhiloxGenerator, TorchGenerator, _philox

REQUIRED = 1e-6  # absolute
SIZES = [*range(1, 41), 100, *range(1023, 1041), 4096, 65536, 100_003]
SEEDS = [0, 1, 7, 2**31, 2**32 - 1, 2**32, 2**40 + 11, 2**63 - 1, 2**64 - 1, -1]


def assert_draws_agree(seed: int, shapes: list[tuple[int, ...]]) -> None:
    """Make the same draws, one after the other, with torch and with ours."""
    import torch

    generator = torch.Generator("cpu").manual_seed(seed)
    ours = TorchGenerator(seed)
    worst = 0.0
    for shape in shapes:
        theirs = torch.randn(shape, generator=generator, dtype=torch.float32).numpy()
        drawn = ours.normal(shape)
        assert drawn.dtype == np.float32
        assert drawn.shape == theirs.shape == shape
        if drawn.size:
            worst = max(worst, float(np.abs(drawn.astype(np.float64) - theirs).max()))
    print(f"seed {seed}, {shapes}: max abs difference measured {worst:.2e}, required {REQUIRED:.0e}")
    assert worst <= REQUIRED


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", SIZES)
def test_one_draw_is_torchs(size: int, seed: int) -> None:
    assert_draws_agree(seed, [(size,)])


@pytest.mark.parametrize("seed", [-2, -(2**31), -(2**63), -(2**63) + 5])
def test_negative_seeds_are_mapped_as_torch_maps_them(seed: int) -> None:
    assert_draws_agree(seed, [(64,), (3,)])


@pytest.mark.parametrize(
    "sizes",
    [
        [3, 5, 100, 1],  # the sample kept by 3 is used up by 5
        [1, 16, 1],  # kept across a large draw
        [1, 17, 0, 1, 1],
        [15, 15, 31, 2, 1, 1, 16],
        [65536, 1, 65536, 15, 1],
        [1] * 40,
        [100_003] * 3,
    ],
)
def test_consecutive_draws_are_torchs(sizes: list[int]) -> None:
    for seed in SEEDS:
        assert_draws_agree(seed, [(size,) for size in sizes])


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(-(2**63), 2**64 - 1),
    sizes=st.lists(st.integers(0, 20) | st.integers(0, 3000), min_size=1, max_size=12),
)
def test_any_sequence_of_draws_is_torchs(seed: int, sizes: list[int]) -> None:
    assert_draws_agree(seed, [(size,) for size in sizes])


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0, 4), (1, 4, 16, 16), (2, 4, 24, 40), (3, 7, 11), (5, 1, 1)])
def test_shape_only_arranges_the_flat_draw(shape: tuple[int, ...]) -> None:
    assert_draws_agree(7, [shape, shape])
    drawn = TorchGenerator(7).normal(shape)
    assert drawn.flags.c_contiguous
    np.testing.assert_array_equal(drawn, TorchGenerator(7).normal((math.prod(shape),)).reshape(shape))


def test_generators_share_no_state() -> None:
    first, second = TorchGenerator(3), TorchGenerator(3)
    alone = [first.normal((5,)), first.normal((40,))]
    np.random.seed(0)  # noqa: NPY002 (numpy's global stream must not matter)
    TorchGenerator(4).normal((9,))
    np.testing.assert_array_equal(alone[0], second.normal((5,)))
    np.testing.assert_array_equal(alone[1], second.normal((40,)))


def test_numpy_integers_are_seeds() -> None:
    for seed in (np.int64(-1), np.uint64(2**64 - 1)):
        np.testing.assert_array_equal(TorchGenerator(seed).normal((20,)), TorchGenerator(-1).normal((20,)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seed", "got"),
    [
        (2**64, "18446744073709551616"),
        (-(2**63) - 1, "-9223372036854775809"),
        (10**5000, "16610 bits"),
        (1.0, "1.0 (float)"),
        (math.nan, "nan (float)"),
        ("7", "'7' (str)"),
        (None, "None"),
        (True, "True (bool)"),
        (np.bool_(True), "bool"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_bad_seed_is_refused(seed: Any, got: str) -> None:
    with pytest.raises(UsageError) as caught:
        TorchGenerator(seed)
    error = caught.value
    assert got in error.got
    assert error.what
    assert "2**64 - 1" in error.expected
    assert error.fix


# torch's CUDA generator: there is no GPU here, so against published numbers.


def test_cuda_numbers_are_the_published_ones() -> None:
    """The expected output that AUTOMATIC1111's rng_philox.py states, of torch.randn(3, 4) on CUDA with seed 0."""
    published = [
        [-0.92466259, -0.42534415, -2.6438457, 0.14518388],
        [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
        [-1.07454231, -0.36314407, -1.67105067, 2.26550497],
    ]
    drawn = PhiloxGenerator(0).normal((3, 4))
    assert drawn.dtype == np.float32
    print(f"measured {np.abs(drawn - published).max():.1e}, required 1e-6")
    np.testing.assert_allclose(drawn, published, atol=1e-6)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_words_are_the_published_ones(counter: list[int], key: list[int], words: list[int]) -> None:
    """Known answers of Random123, kat_vectors, philox 4x32 10."""
    low, high = (np.array([counter[i] | counter[i + 1] << 32], np.uint64) for i in (0, 2))
    drawn = _philox(np.array(key, np.uint32), counter=low, stream=high)
    np.testing.assert_array_equal(drawn[:, 0], words)


def test_cuda_draws_continue_and_are_standard_normal() -> None:
    generator = PhiloxGenerator(2**40 + 7)
    drawn = np.stack([generator.normal((4, 64, 64)) for _ in range(4)])
    assert np.abs(np.cov(drawn.reshape(4, -1)) - np.eye(4)).max() < 0.05
    again = PhiloxGenerator(2**40 + 7)
    np.testing.assert_array_equal(again.normal((4, 64, 64)), drawn[0])
    assert np.abs(PhiloxGenerator(7).normal((8,)) - PhiloxGenerator(2**40 + 7).normal((8,))).max() > 0.1
    assert again.normal((0, 4)).shape == (0, 4)
    np.testing.assert_array_equal(again.normal((4, 64, 64)), drawn[1])


def test_a_small_gpu_makes_later_elements_from_the_same_threads() -> None:
    """256 threads for 2,000 elements: the first 256 are as on any GPU, then the threads' other numbers."""
    few, many = PhiloxGenerator(3, threads=256), PhiloxGenerator(3)
    drawn, plain = few.normal((2000,)), many.normal((2000,))
    np.testing.assert_array_equal(drawn[:256], plain[:256])
    assert not np.isin(drawn[256:1024], plain).any()
    assert len(np.unique(drawn)) > 1990
    many.normal((256,))
    np.testing.assert_array_equal(drawn[1024:1280], PhiloxGenerator(3, threads=256).normal((1280,))[1024:])
    np.testing.assert_array_equal(few.normal((256,)), many.normal((256,)))


@pytest.mark.parametrize("seed", [1.5, "7", True, 2**64, -(2**63) - 1])
def test_cuda_seeds_that_torch_refuses_are_refused(seed: Any) -> None:
    with pytest.raises(UsageError, match="seed cannot be used"):
        PhiloxGenerator(seed)
