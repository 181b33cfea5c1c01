"""The matrix of `scripts/fidelity`: what it covers, some of its rows, and what makes a row fail.

The reference is diffusers' pipeline in float32 on the CPU with one CPU generator and the row's scheduler config.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.fidelity.cases import PREDICTIONS, TASKS, Absence, Case, absences, cases
from benchmarks.fidelity.matrix import BOUND, Comparison, Distances, Row, distance, spread
from benchmarks.fidelity.models import prepare
from benchmarks.fidelity.sides import Theirs
from sdxl_trt.runtime import expert
from sdxl_trt.runtime.samplers import SAMPLERS
from sdxl_trt.runtime.table import Table
from sdxl_trt.spec import Column

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def comparison(pytestconfig: pytest.Config) -> Comparison:
    assert pytestconfig.cache is not None
    return Comparison(*prepare(pytestconfig.cache.mkdir("fidelity")))


def case_of(name: str) -> Case:
    return next(case for case in cases() if str(case) == name)


def test_every_sampler_is_compared_or_listed() -> None:
    every = list(cases())
    assert len({str(case) for case in every}) == len(every) >= 150
    listed = {absence.sampler for absence in absences() if absence.variant == "all" and absence.tasks == TASKS}
    assert {case.sampler.name for case in every} | listed == set(SAMPLERS)
    assert listed == {"dpmpp_2s_a"}
    assert {case.prediction for case in every} == set(PREDICTIONS)


def test_the_quick_form_has_every_sampler_with_every_task() -> None:
    pairs = [(case.sampler.name, case.task) for case in spread()]
    assert set(pairs) == {(case.sampler.name, case.task) for case in cases()}
    assert len(set(pairs)) == len(pairs)
    assert len({sampler for sampler, _ in pairs[:20]}) == 20  # a cut leaves no sampler out


@pytest.mark.parametrize(
    "name",
    [
        "euler, leading, epsilon, text",
        "dpmpp_2m, karras, v_prediction, image",
        "unipc, trailing, epsilon, inpaint",
        "heun, linspace, epsilon, ensemble",
        "euler_a, zero SNR, v_prediction, text",
        "ddim, eta 1, sample, image",
    ],
)
def test_rows_pass(comparison: Comparison, name: str) -> None:
    row = comparison.compare(case_of(name))
    assert isinstance(row, Row)
    print(f"{name}: measured {row.error:.1e}, required {row.bound:.0e}")
    assert row.passed


def test_what_diffusers_refuses_is_no_row(comparison: Comparison) -> None:
    found = comparison.compare(case_of("dpm2, leading, sample, text"))
    assert isinstance(found, Absence)
    print(found.reason)
    assert found.reason.startswith("diffusers refuses: ")


@pytest.mark.parametrize("field", [Column.transition, Column.output], ids=["transition", "output"])
def test_one_percent_in_one_coefficient_makes_a_row_fail(
    comparison: Comparison, field: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = expert.make_table

    def perturbed(*arguments: Any, **options: Any) -> Table:
        table = exact(*arguments, **options)
        columns = table.columns.copy()
        columns[0, field.start] *= 1.01
        return replace(table, columns=columns)

    monkeypatch.setattr(expert, "make_table", perturbed)
    row = comparison.compare(case_of("euler, leading, epsilon, text"))
    assert isinstance(row, Row)
    print(f"measured {row.error:.1e}, must exceed {row.bound:.0e}")
    assert row.failed


def test_diffusers_in_float64_is_near_and_not_the_same(comparison: Comparison, pytestconfig: pytest.Config) -> None:
    assert pytestconfig.cache is not None
    models = prepare(pytestconfig.cache.mkdir("fidelity"))
    case = case_of("deis, leading, epsilon, text")
    rounded, exact = Theirs(*models).latents(case), Theirs(*models, double=True).latents(case)
    assert (rounded.dtype, exact.dtype) == ("float32", "float64")
    error = distance(rounded, exact)
    print(f"float32's distance to float64: measured {error:.1e}, required 1e-7 to {BOUND:.0e}")
    assert 1e-7 < error < BOUND


def test_a_wider_bound_is_for_rows_that_float64_is_on_the_side_of() -> None:
    case = case_of("euler, leading, epsilon, text")
    assert Row(case=case, error=2e-3).failed
    assert Row(case=case, error=2e-3, to_double=Distances(theirs=1e-5, ours=2e-3)).failed
    shown = Row(case=case, error=2e-3, to_double=Distances(theirs=2e-3, ours=1e-5))
    assert shown.passed
    assert "float32" in shown.reason
    assert Row(case=case, error=6e-3, to_double=Distances(theirs=6e-3, ours=1e-5)).failed
