"""What holds for every sampler, with σ or timesteps spaced in every way that it has: as numbers, and in the loop.

Orders of convergence: test_convergence.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from columns import apply, drawn_noise, levels, model_input
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_step import TOKENS, Array, NumpyStep

from sdxl_trt.runtime.device import HostDevice
from sdxl_trt.runtime.levels import Mix
from sdxl_trt.runtime.loop import Loop
from sdxl_trt.runtime.noise import TorchGenerator
from sdxl_trt.runtime.samplers import SAMPLERS, make_table, variants
from sdxl_trt.runtime.slots import Conditioning, SlotRequest
from sdxl_trt.runtime.table import Table
from sdxl_trt.spec import HISTORY, Column, ModelSpec

EVERY = {each.title: each for sampler in SAMPLERS.values() for each in (sampler, *variants(sampler).values())}
LATENT = (4, 3, 5)
SDXL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
NEVER = np.float32(-np.inf)


@functools.cache
def table_of(title: str, steps: int, prediction: str = "epsilon") -> Table:
    config = {} if title.startswith("EDM") else SDXL
    return make_table({**config, "prediction_type": prediction}, steps, title)


def ends(title: str, table: Table) -> Mix:
    """DEIS, TCD and PLMS end at the first level of training, and what is left of its noise stays."""
    if not title.startswith(("DEIS", "TCD", "PLMS")):
        return table.ends
    noise = math.sqrt(SDXL["beta_start"])
    return Mix(math.sqrt(1 - noise**2), noise)


@pytest.mark.parametrize("title", EVERY)
@given(steps=st.integers(2, 30), prediction=st.sampled_from(["epsilon", "v_prediction"]))
@settings(max_examples=6, deadline=None)
def test_a_constant_clean_sample_keeps_every_sample_at_its_level(title: str, steps: int, prediction: str) -> None:
    """Where the network always finds the same picture, each sample is exactly that under the noise of its level.

    As factors: of the picture, and the length of those of everything drawn. PLMS, which adds up outputs of several
    levels, does so for ε alone.
    """
    if title in {"DDIM SGM Uniform", "PLMS SGM Uniform"}:  # they step by 1000 // steps, whatever comes next
        steps = max(divisor for divisor in (2, 4, 5, 8, 10, 20, 25) if divisor <= steps)
    table = table_of(title, steps, "epsilon" if title.startswith("PLMS") else prediction)
    *between, _ = levels(table)[1:]
    state = np.zeros((HISTORY, 2 + table.evaluations))
    state[0, :2] = table.begins
    clean = np.eye(1, 2 + table.evaluations)[0]
    worst = 0.0
    expected = [*between, ends(title, table)]
    for column, level, fresh in zip(table.columns.astype(np.float64), expected, drawn_noise(table), strict=True):
        output = (clean - column[Column.x0_input] * model_input(column, state)) / column[Column.x0_output]
        state, x0 = apply(column, state, output, np.concatenate([[0.0], fresh]))
        np.testing.assert_allclose(x0, clean, atol=1e-9)
        reached = Mix(float(state[0, 0]), float(np.linalg.norm(state[0, 1:])))
        worst = max(worst, math.dist(reached, level) / math.hypot(*level))
    required = 1e-4 if title.startswith(("Heun", "DPM2")) else 3e-6  # float32 differences of samples of σ = 14
    print(f"{title}, {steps} steps: measured {worst:.1e}, required {required:.0e}")
    assert worst <= required


def conditioning(seed: int, *, breaks_at: float = NEVER) -> Conditioning:
    """Of a row whose output is NaN at a timestep, if one is given."""
    rng = np.random.default_rng(seed)
    return Conditioning(
        text=rng.standard_normal((TOKENS, 12), np.float32),
        pooled=rng.standard_normal(5, np.float32),
        time_ids=np.full(6, breaks_at, np.float32),
    )


def network(sample: Array, timestep: Array, text: Array, pooled: Array, time_ids: Array) -> Array:
    """A bounded stand-in for the UNet, on one row."""
    output = np.tanh(sample + np.sin(timestep / 100) + text.mean() + pooled.mean())
    return np.where(time_ids[0] == timestep, np.float32(np.nan), output)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture to make, as hypothesis draws it."""

    title: str
    steps: int
    seed: int
    guidance: float = 5.0
    breaks: int | None = None
    """The evaluation whose output is NaN."""

    def request(self) -> SlotRequest:
        table, source = table_of(self.title, self.steps), TorchGenerator(self.seed)
        number = None if self.breaks is None else self.breaks % table.evaluations
        broken = NEVER if number is None else float(table.columns[number, Column.timestep.start])
        return SlotRequest(
            table=table,
            noise=source.normal(LATENT),
            source=source,
            prompt=conditioning(self.seed, breaks_at=broken),
            negative=conditioning(self.seed + 1),
            guidance=self.guidance,
        )


def run(engine: NumpyStep, requests: Sequence[SlotRequest], *, slots: int) -> list[Array]:
    """Latents of all: one joins at each step where there is room, so that neighbours are at different steps."""
    height, width = LATENT[1:]
    loop = Loop(engine, HostDevice(), slots=slots, height=height, width=width, tokens=TOKENS)
    waiting, running, latents = list(enumerate(requests)), dict[int, int](), dict[int, Array]()
    while waiting or running:
        if waiting and loop.free:
            number, request = waiting.pop(0)
            running[loop.join(request)] = number
        for slot in loop.step():
            latents[running.pop(slot)] = loop.latents(slot)
            loop.leave(slot)
    return [latents[number] for number in range(len(requests))]


def test_a_constant_output_is_integrated_exactly(toy_model: ModelSpec) -> None:
    """Every sampler without fresh noise, side by side: ε always the same moves a sample in a straight line of σ/α."""
    constant = np.random.default_rng(2).standard_normal(LATENT).astype(np.float32)
    engine = NumpyStep(toy_model, lambda *_: constant)
    titles = [title for title in EVERY if not title.startswith("EDM") and not any(table_of(title, 10).noises)]
    requests = [Picture(title=title, steps=10, seed=seed).request() for seed, title in enumerate(titles)]
    for title, request, latents in zip(titles, requests, run(engine, requests, slots=8), strict=True):
        table = request.table
        first, last = table.begins, ends(title, table)
        clean = (table.initial_scale * request.noise.astype(np.float64) - first.noise * constant) / first.image
        wanted = last.image * clean + last.noise * constant
        error = float(np.abs(latents - wanted).max() / np.abs(wanted).max())
        print(f"{title}: measured {error:.1e}, required 1e-05")
        assert error <= 1e-5


mixtures = st.tuples(st.permutations(sorted(EVERY)), st.integers(2, 5), st.sampled_from([1.0, 3.0]))


@given(mixture=mixtures, slots=st.integers(2, 6))
@settings(max_examples=3, deadline=None)
def test_a_batch_of_all_samplers_equals_its_single_runs(
    toy_model: ModelSpec, mixture: tuple[list[str], int, float], slots: int
) -> None:
    titles, steps, guidance = mixture
    pictures = [
        Picture(title=title, steps=2 + (steps + seed) % 4, seed=seed, guidance=guidance + seed % 2)
        for seed, title in enumerate(titles)
    ]
    engine = NumpyStep(toy_model, network)
    together = run(engine, [picture.request() for picture in pictures], slots=slots)
    for picture, latents in zip(pictures, together, strict=True):
        (alone,) = run(engine, [picture.request()], slots=1)
        assert np.isfinite(latents).all()
        np.testing.assert_array_equal(latents, alone, err_msg=str(picture))


@given(mixture=mixtures, slots=st.integers(2, 6), breaks=st.integers(0, 9))
@settings(max_examples=3, deadline=None)
def test_nan_leaves_neighbours_and_successors_as_they_are(
    toy_model: ModelSpec, mixture: tuple[list[str], int, float], slots: int, breaks: int
) -> None:
    """Every second picture breaks at some evaluation, of every sampler in turn."""
    titles, steps, guidance = mixture
    sound = [Picture(title=title, steps=steps, seed=seed, guidance=guidance) for seed, title in enumerate(titles)]
    broken = [
        Picture(title=title, steps=2 + seed % 3, seed=seed, guidance=guidance, breaks=breaks + seed)
        for seed, title in enumerate(reversed(titles))
    ]
    engine = NumpyStep(toy_model, network)
    requests = [picture.request() for pair in zip(broken, sound, strict=True) for picture in pair]
    latents = run(engine, requests, slots=slots)
    wanted = run(engine, [picture.request() for picture in sound], slots=slots)
    for picture, measured, expected in zip(sound, latents[1::2], wanted, strict=True):
        assert np.isfinite(measured).all(), picture
        np.testing.assert_array_equal(measured, expected, err_msg=str(picture))
    assert all(np.isnan(each).any() for each in latents[::2])
