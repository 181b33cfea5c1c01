"""From counts at a few shapes to the polynomials that hold at all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from sdxl_trt.costs.counting import Counts, count
from sdxl_trt.errors import ExportError
from sdxl_trt.spec import LATENT_SCALE, Term, Work
from sdxl_trt.spec.work import WORK_AXES, Terms

Axes = dict[str, int]

Coefficients = tuple[Fraction, ...]
"""Of a polynomial, by monomial."""

BATCH = ("rows", "slots")
"""Axes that work is linear in."""

AREAS = ((16, 16), (16, 32), (32, 32))
"""Latent heights and widths to count at: every level halves them evenly."""

HELD_OUT = {"rows": 3, "slots": 4, "height": 48, "width": 64, "tokens": 231}


def graph_work(model: Any) -> Work:
    """The work of a graph at all shapes.

    Per row or slot, convolutions and products go with the latent's area, attention with its square, and what reads the
    text with its tokens, or with tokens times area. So counts at as many shapes as there are such terms give them all,
    exactly.

    Args:
        model: onnx.ModelProto as `export` writes it.

    Raises:
        ExportError: it is no such graph: a size depends on values, or its work on other terms.
    """
    axes = _axes(model)
    monomials, points = _monomials(axes), _points(axes)
    inverse = _inverse([[_product(monomial, point) for monomial in monomials] for point in points])
    counts = [count(model, point) for point in points]

    def fitted(values: Sequence[int]) -> Coefficients:
        return tuple(sum((a * b for a, b in zip(row, values, strict=True)), Fraction()) for row in inverse)

    def terms(coefficients: Coefficients) -> Terms:
        pairs = zip(coefficients, monomials, strict=True)
        return tuple(Term(coefficient=float(c), powers=monomial) for c, monomial in pairs if c)

    live = {fitted(values) for values in zip(*(each.live for each in counts), strict=True)}
    work = Work(
        parameters=counts[0].parameters,
        weights=counts[0].weights,
        operation_terms=terms(fitted([each.operations for each in counts])),
        traffic_terms=terms(fitted([each.traffic for each in counts])),
        live_terms=tuple(terms(coefficients) for coefficients in _undominated(live)),
    )
    _check(model, work, {axis: HELD_OUT[axis] for axis in axes})
    return work


def _axes(model: Any) -> tuple[str, ...]:
    """Names of the graph's free axes; pixels count as latent elements."""
    dimensions = (d for value in model.graph.input for d in value.type.tensor_type.shape.dim)
    named = {d.dim_param.removeprefix(f"{LATENT_SCALE}*") for d in dimensions}
    return tuple(axis for axis in WORK_AXES if axis in named)


def _monomials(axes: Sequence[str]) -> list[Axes]:
    area: Axes = {axis: 1 for axis in ("height", "width") if axis in axes}
    tokens: Axes = {axis: 1 for axis in ("tokens",) if axis in axes}
    square: Axes = dict.fromkeys(area, 2)
    inner = [{}, *([area, square] if area else []), *([tokens] if tokens else [])]
    if area and tokens:
        inner.append(area | tokens)
    return [{}, *({axis: 1} | each for axis in BATCH if axis in axes for each in inner)]


def _points(axes: Sequence[str]) -> list[Axes]:
    """As many shapes as there are monomials, at which those are linearly independent."""
    areas: list[Axes] = [{"height": h, "width": w} for h, w in AREAS] if "height" in axes else [{}]
    inner = [each | {"tokens": 77} for each in areas]
    if "tokens" in axes:
        inner += [each | {"tokens": 154} for each in areas[:2]]
    batch = [axis for axis in BATCH if axis in axes]
    points = list(inner)
    for axis in batch:
        points += [each | {axis: 2} for each in (inner[:1] if axis == batch[-1] else inner)]
    return [{axis: point.get(axis, 1) for axis in axes} for point in points]


def _product(monomial: Axes, point: Axes) -> int:
    product = 1
    for axis, power in monomial.items():
        product *= point[axis] ** power
    return product


def _inverse(matrix: Sequence[Sequence[int]]) -> list[list[Fraction]]:
    """Of a regular square matrix of whole numbers, exactly, by Gauss–Jordan elimination."""
    size = len(matrix)
    rows = [
        [Fraction(value) for value in row] + [Fraction(int(i == j)) for j in range(size)]
        for i, row in enumerate(matrix)
    ]
    for column in range(size):
        pivot = next(i for i in range(column, size) if rows[i][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        scale = rows[column][column]
        rows[column] = [value / scale for value in rows[column]]
        for i in range(size):
            factor = rows[i][column]
            if i != column and factor:
                rows[i] = [value - factor * other for value, other in zip(rows[i], rows[column], strict=True)]
    return [row[size:] for row in rows]


def _undominated(candidates: Iterable[Coefficients]) -> list[Coefficients]:
    """Those that no other has all coefficients of, or larger ones: the others are at no shape the largest."""
    kept: list[Coefficients] = []
    for each in sorted(candidates, key=lambda coefficients: (sum(coefficients), coefficients), reverse=True):
        if not any(all(a <= b for a, b in zip(each, other, strict=True)) for other in kept):
            kept.append(each)
    return kept


def _check(model: Any, work: Work, axes: Axes) -> None:
    """Refuse polynomials that do not hold at a shape they were not made from."""
    expected, got = _summary(count(model, axes)), (work.operations(axes), work.bytes(axes), work.activations(axes))
    if got != expected:
        raise ExportError(
            f"the work of {model.graph.name} does not follow its axes as SDXL's does",
            got=f"operations, bytes, live bytes {got} at {axes}",
            expected=f"{expected}, as counted",
            fix="report this model",
        )


def _summary(counts: Counts) -> tuple[int, int, int]:
    return counts.operations, counts.weights + counts.traffic, max(counts.live, default=0)
