"""The Brownian path: its law, its consistency, and that a picture's noise is its own."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sdxl_trt.runtime.brownian import BrownianPath

times = st.integers(0, 14_000_000).map(lambda millionths: 0.03 + millionths / 1e6)


def path(seed: int = 7, shape: tuple[int, ...] = (64,)) -> BrownianPath:
    return BrownianPath(shape, lowest=0.03, highest=14.03, seed=seed)


@settings(max_examples=25, deadline=None)
@given(st.lists(times, min_size=3, max_size=3, unique=True).map(sorted))
@example([0.03, 0.692735, 0.692737])  # in float32 the last two are 1.7 % nearer
def test_increments_add_up_whatever_is_asked_for_first(points: list[float]) -> None:
    first, second, third = points
    forwards, backwards = path(), path()
    a, b = forwards.increment(first, second), forwards.increment(second, third)
    whole = backwards.increment(first, third)
    np.testing.assert_array_equal(backwards.increment(first, second), a)
    np.testing.assert_array_equal(backwards.increment(second, first), -a)
    total = a * np.sqrt(second - first) + b * np.sqrt(third - second)
    off = np.abs(total - whole * np.sqrt(third - first)).max()
    print(f"off from the whole: measured {off:.1e}, required 5e-6")
    assert off <= 5e-6


def test_increments_are_standard_normal_and_independent() -> None:
    drawn = path(shape=(20_000,))
    edges = [14.03, 9.0, 5.5, 2.2, 0.8, 0.03]
    noises = np.stack([drawn.increment(high, low) for high, low in itertools.pairwise(edges)])
    covariance = np.cov(noises)
    print(f"off from the unit matrix: measured {np.abs(covariance - np.eye(5)).max():.3f}, required 0.04")
    assert np.abs(covariance - np.eye(5)).max() <= 0.04
    assert np.abs(noises.mean(1)).max() <= 0.03


def test_a_seed_is_a_path() -> None:
    np.testing.assert_array_equal(path(1).increment(1.0, 2.0), path(1).increment(1.0, 2.0))
    assert np.abs(path(1).increment(1.0, 2.0) - path(2).increment(1.0, 2.0)).max() > 0.1
    assert (path().increment(2.0, 2.0000001) == 0).all()


def test_the_path_is_torchsdes() -> None:
    import torch
    import torchsde

    theirs = torchsde.BrownianInterval(
        t0=0.03, t1=14.03, size=(64,), dtype=torch.float32, device="cpu", entropy=7, tol=1e-6, pool_size=24,
        halfway_tree=True,
    )  # fmt: skip
    for low, high in ((2.0, 5.5), (0.03, 1.25), (9.123456, 14.03)):
        wanted = theirs(low, high).numpy() / np.float32(np.sqrt(high - low))
        np.testing.assert_allclose(path().increment(low, high), wanted, atol=1e-5)
