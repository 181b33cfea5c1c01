"""A1111's names of samplers and schedulers: what they are here, and that none is taken for another."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import numpy as np
import pytest

from sdxl_trt.errors import SdxlTrtError, UnknownName
from sdxl_trt.runtime.samplers import SamplerOptions, find_sampler, make_table
from sdxl_trt.runtime.serve.http.a1111_samplers import choose_sampler, listed_samplers, listed_schedulers
from sdxl_trt.runtime.serve.http.errors import HttpError
from sdxl_trt.spec import Column, ModelSpec

CONFIG = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
KARRAS = SamplerOptions(sigmas="karras")


@pytest.fixture(scope="module")
def model(toy_model: ModelSpec) -> ModelSpec:
    return dataclasses.replace(toy_model, scheduler=CONFIG)


def levels(name: str | None, options: SamplerOptions) -> list[float]:
    return [float(column[Column.timestep][0]) for column in make_table(CONFIG, 20, name, options=options).columns]


@pytest.mark.parametrize(
    ("name", "scheduler", "options"),
    [
        ("Euler a", "automatic", SamplerOptions(spacing="linspace")),
        ("Euler", None, SamplerOptions(spacing="linspace", sigmas="trained")),
        ("DPM++ 2M", "automatic", KARRAS),
        ("DPM++ 2M", "Automatic", KARRAS),
        ("DPM++ 2M Karras", None, KARRAS),
        ("DPM++ 2M Karras", "karras", KARRAS),
        ("DPM++ 2M", "Normal", SamplerOptions(spacing="linspace", sigmas="trained")),
        ("DPM++ 2M", "SGM Uniform", SamplerOptions(spacing="trailing", sigmas="trained")),
        ("DPM++ 2M SGMUniform", "", SamplerOptions(spacing="trailing", sigmas="trained")),
        ("DPM++ 2M SDE", None, SamplerOptions(sigmas="exponential")),
        ("DPM++ 2M SDE Heun Karras", None, SamplerOptions(sigmas="karras", solver="heun")),
        ("DPM++ 3M SDE Polyexponential", None, SamplerOptions(sigmas="exponential")),
        ("k_euler", "beta", SamplerOptions(sigmas="beta")),
        ("DDIM", "automatic", SamplerOptions()),
        ("DDIM", "normal", SamplerOptions(spacing="linspace")),
        ("PLMS", "ddim", SamplerOptions(spacing="leading", steps_offset=1)),
        (None, None, SamplerOptions()),
        (None, "karras", KARRAS),
    ],
)
def test_names_are_what_they_are_in_a1111(
    model: ModelSpec, name: str | None, scheduler: str | None, options: SamplerOptions
) -> None:
    found, chosen = choose_sampler(name, scheduler, None, model)
    assert chosen == options
    assert (found is None) == (name is None)


def test_uniform_is_k_diffusions_get_sigmas(model: ModelSpec) -> None:
    table = make_table(CONFIG, 20, "euler", options=choose_sampler("Euler", "uniform", None, model)[1])
    assert np.allclose(table.columns[:, Column.timestep], np.linspace(999, 0, 20)[:, None], atol=1e-3)


@pytest.mark.parametrize("sampler", [each["name"] for each in listed_samplers()])
def test_what_is_listed_runs_or_is_refused_and_automatic_always_runs(model: ModelSpec, sampler: str) -> None:
    for scheduler in (each["label"] for each in listed_schedulers()):
        name, options = choose_sampler(sampler, scheduler, None, model)
        with contextlib.suppress(SdxlTrtError):
            levels(name, options)
    assert sampler.startswith("EDM") or levels(*choose_sampler(sampler, "automatic", None, model))


@pytest.mark.parametrize("name", ["sdxl-lightning-4step", "hyper-sdxl-8step"])
def test_a_distilled_model_keeps_the_spacing_that_it_needs(model: ModelSpec, name: str) -> None:
    distilled = dataclasses.replace(model, name=name)
    for sampler in (None, "Euler", "Euler a"):
        assert choose_sampler(sampler, "automatic", None, distilled)[1].spacing == "trailing"
    assert choose_sampler("Euler", "uniform", None, distilled)[1].spacing == "linspace"


@pytest.mark.parametrize(
    ("name", "eta", "options"),
    [("DDIM", 1.0, 1.0), ("DDIM", None, None), ("Euler a", 1.0, None), ("Euler", 1.0, None), ("Euler", 0.0, None)],
)
def test_eta_is_taken_where_the_sampler_has_it(
    model: ModelSpec, name: str, eta: float | None, options: float | None
) -> None:
    assert choose_sampler(name, None, eta, model)[1].eta == options


@pytest.mark.parametrize(
    ("asked", "kind", "named"),
    [
        (("Euler a", None, 0.0), HttpError, "eta"),
        (("Euler", None, 0.5), HttpError, "eta"),
        (("DPM++ 2M Karras", "exponential", None), HttpError, "scheduler"),
        (("DPM adaptive", None, None), UnknownName, "DPM adaptive"),
        (("Euler", "align_your_steps", None), UnknownName, "align_your_steps"),
    ],
)
def test_what_there_is_not_is_refused_by_name(model: ModelSpec, asked: Any, kind: type[Exception], named: str) -> None:
    with pytest.raises(kind, match=named):
        choose_sampler(*asked, model)


def test_karras_changes_the_levels(model: ModelSpec) -> None:
    plain, karras = (
        levels("dpmpp_2m", choose_sampler(f"DPM++ 2M {each}", None, None, model)[1]) for each in ("Normal", "Karras")
    )
    assert plain != karras
    assert find_sampler("DPM++ 2M Karras").overrides["use_karras_sigmas"]
