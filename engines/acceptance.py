"""An engine runs, and agrees with the reference, before it enters a bundle.

This is done where the engine's hardware is: for onnxruntime on the CPU, here. (Not with polygraphy: it imports torch
wherever that is installed, which takes ten times as long as the comparison, and it relates an error to the single
value it is found at, which close to zero says nothing.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.engines.hooks import STEPS, Report
from sdxl_trt.errors import BuildError
from sdxl_trt.spec import GraphSpec, Profile, Range, TensorSpec

MAX_RELATIVE_ERROR = 1e-4
"""Of an optimised float32 graph: the largest difference to the reference, over the reference's largest value."""

Arrays = dict[str, NDArray[Any]]


def accept_on_cpu(path: Path, spec: GraphSpec, profile: Profile, report: Report) -> None:
    """Run a float32 graph as onnxruntime optimises it against the same graph with nothing optimised.

    At the smallest and the best-tuned shape of the profile and one of odd sizes between, on random inputs. Reports
    steps as a build does, all but the last.

    Raises:
        BuildError: onnxruntime cannot run it; an output is not finite; or they differ by more than the bound.
    """
    rng = np.random.default_rng(0)
    feeds = [random_inputs(spec, axes, rng) for axes in shapes_to_try(spec, profile)]
    outputs: list[Arrays] = []
    try:
        for optimised in (False, True):  # one session after the other: only one holds its weights
            for output in run(path, feeds, optimised=optimised):
                outputs.append(output)
                report((STEPS - 1) * len(outputs) // (2 * len(feeds)), STEPS)
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        raise _refused(spec, str(error), "onnxruntime to run it") from error
    for feed, expected, got in zip(feeds, outputs[: len(feeds)], outputs[len(feeds) :], strict=True):
        for name, size in errors(expected, got).items():
            if not size <= MAX_RELATIVE_ERROR:  # NaN is refused too
                shapes = ", ".join(f"{tensor} {list(array.shape)}" for tensor, array in feed.items())
                raise _refused(
                    spec, f"{name} is off by {size:.2g} at {shapes}", f"a relative error up to {MAX_RELATIVE_ERROR:g}"
                )


def run(path: Path, feeds: Iterable[Arrays], *, optimised: bool) -> Iterator[Arrays]:
    """Outputs by name for each feed, of the graph as onnxruntime optimises it or as it stands."""
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    options.log_severity_level = 3  # errors; they are raised as well
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for feed in feeds:
        yield dict(zip(names, session.run(names, feed), strict=True))


def errors(expected: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Per output the largest difference over the largest expected value; NaN where anything is not finite."""

    def error(a: NDArray[Any], b: NDArray[Any]) -> float:
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return float("nan")
        return float(np.abs(a - b).max() / max(np.abs(a).max(), np.finfo(np.float32).tiny))

    return {name: error(expected[name], got[name]) for name in expected}


def shapes_to_try(spec: GraphSpec, profile: Profile) -> tuple[dict[str, int], ...]:
    """Lengths of the graph's axes: smallest, best-tuned, and odd ones between that differ from axis to axis."""
    names = dict.fromkeys(axis.rpartition("*")[2] for axis in spec.axes)
    ranges = {name: profile.axis(name, spec.name) for name in names}
    return (
        {name: r.min for name, r in ranges.items()},
        {name: r.opt for name, r in ranges.items()},
        {name: _odd(r, part) for part, (name, r) in enumerate(ranges.items(), start=2)},
    )


def _odd(r: Range, part: int) -> int:
    """An odd value one `part`-th of the way from the smallest to the largest, if the range has one."""
    value = (r.min + (r.max - r.min) // part) | 1
    return min(value, r.max)


def random_inputs(spec: GraphSpec, axes: Mapping[str, int], rng: np.random.Generator) -> Arrays:
    """Inputs of the graph's shapes and dtypes: normal values, and valid indices where it takes indices."""

    def shape(tensor: TensorSpec) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else _length(size, axes) for size in tensor.shape)

    shapes = {tensor.name: shape(tensor) for tensor in spec.inputs}
    limits = {
        "row_slot": axes.get("slots", 0),
        "cond_row": axes.get("rows", 0),
        "uncond_row": axes.get("rows", 0),
        "pool_index": shapes["embeddings"][1] if "embeddings" in shapes else 0,
    }
    return {
        tensor.name: rng.integers(limits[tensor.name], size=shapes[tensor.name], dtype=np.int32)
        if tensor.dtype == "int32"
        else rng.standard_normal(shapes[tensor.name]).astype(tensor.dtype)
        for tensor in spec.inputs
    }


def _length(size: str, axes: Mapping[str, int]) -> int:
    factor, _, axis = size.rpartition("*")
    return int(factor or 1) * axes[axis]


def _refused(spec: GraphSpec, got: str, expected: str) -> BuildError:
    return BuildError(
        f"the engine of {spec.name} is not accepted",
        got=got,
        expected=expected,
        fix="report this model; it is a fault of the graph or of onnxruntime",
    )
