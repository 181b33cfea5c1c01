"""Engines are run before they enter a bundle, and wrong ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sdxl_trt.bundle import read_manifest
from sdxl_trt.engines.acceptance import MAX_RELATIVE_ERROR, errors, random_inputs, run, shapes_to_try
from sdxl_trt.engines.build import build
from sdxl_trt.engines.targets import resolve_targets
from sdxl_trt.errors import BuildError
from sdxl_trt.exported import read_index
from sdxl_trt.spec import Profile, graph_spec, model_graphs

MakeExport = Callable[..., Path]

DECODER = """
    unscaled = Conv <pads = [1, 1, 1, 1]> (latents, decode)
    factor = Constant <value_floats = [0.3]> ()
    small = Mul(unscaled, factor)
    scales = Constant <value_floats = [1.0, 1.0, 8.0, 8.0]> ()
    large = Resize <mode = "nearest"> (small, , scales)
    {last}
"""
AMPLIFIED = """
    ten_million = Constant <value_floats = [10000000.0]> ()
    huge = Mul(large, ten_million)
    whole = Floor(huge)
    rounding = Sub(huge, whole)
    share = Constant <value_floats = [{share}]> ()
    part = Mul(rounding, share)
    image = Add(large, part)
"""
"""The digits that optimisation rounds otherwise (it fuses the convolution with a product), added with a weight."""


@pytest.mark.parametrize(
    ("last", "got"),
    [
        ("image = Log(large)", "image is off by nan"),
        (AMPLIFIED.format(share=1.0), "image is off by"),
        ("shape = Constant <value_ints = [7, 3, -1, 1]> ()\n    image = Reshape(large, shape)", "Reshape"),
    ],
    ids=["not finite", "differs", "does not run"],
)
def test_wrong_engines_are_refused(
    last: str, got: str, make_export: MakeExport, profile: Profile, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export = make_export(tmp_path, bodies={"vae_decoder": DECODER.format(last=last)}, precisions=("float32",))
    bundle = tmp_path / "bundle"
    with pytest.raises(BuildError, match="vae_decoder is not accepted") as caught:
        build(export, bundle, resolve_targets(["cpu"]), profile=profile)
    assert got in caught.value.got
    assert caught.value.expected
    assert not (bundle / "bundle.json").exists()
    assert len(list((bundle / ".pending").glob("*.json"))) == 3, "only engines that were accepted are recorded"
    assert capfd.readouterr().out == "", "stdout is for results"


def test_rounding_below_the_bound_is_accepted(make_export: MakeExport, profile: Profile, tmp_path: Path) -> None:
    """The same graph that is refused above, with less of the noise."""
    body = DECODER.format(last=AMPLIFIED.format(share="0.00001"))
    export = make_export(tmp_path, bodies={"vae_decoder": body}, precisions=("float32",))
    manifest = build(export, tmp_path / "bundle", resolve_targets(["cpu"]), profile=profile)
    assert read_manifest(tmp_path / "bundle").targets[0].accepted
    assert manifest.targets[0].accepted


def test_errors_are_relative_to_the_largest_value() -> None:
    expected = {"x": np.array([0.0, -4.0, 2.0], np.float32), "y": np.array([1.0], np.float32)}
    assert errors(expected, expected) == {"x": 0.0, "y": 0.0}
    assert errors(expected, {"x": np.array([1.0, -4.0, 2.0], np.float32), "y": np.array([1.5], np.float32)}) == {
        "x": 0.25,
        "y": 0.5,
    }
    for bad in (np.nan, np.inf):
        broken = errors(expected, {**expected, "y": np.array([bad], np.float32)})
        assert not broken["y"] <= MAX_RELATIVE_ERROR


def test_shapes_and_indices_are_valid(export: Path) -> None:
    model = read_index(export).model
    profile = Profile.make(smallest=(512, 512), best=(1024, 1024), largest=(1536, 1536), batch=4, tokens=77)
    rng = np.random.default_rng(0)
    for name in (*model_graphs(model), "unet"):
        spec = graph_spec(name, model, "float32")
        tried = shapes_to_try(spec, profile)
        for axes in tried:
            for axis, length in axes.items():
                assert profile.axis(axis, name).min <= length <= profile.axis(axis, name).max
        assert all(length % 2 for axis, length in tried[2].items() if axis != "slots" or not name.startswith("vae"))
        if "height" in tried[2]:
            assert tried[2]["height"] != tried[2]["width"]
        many = {**tried[0], "rows": 6, "slots": 3}
        inputs = random_inputs(spec, many, rng)
        assert {t.name: (t.dtype, len(t.shape)) for t in spec.inputs} == {
            key: (array.dtype.name, array.ndim) for key, array in inputs.items()
        }
        limits = {"row_slot": 3, "cond_row": 6, "uncond_row": 6, "pool_index": model.text_encoders[0].tokens}
        for key, array in inputs.items():
            if array.dtype == np.int32:
                assert 0 <= array.min() <= array.max() < limits[key]


def test_reference_is_not_optimised(export: Path, profile: Profile, tmp_path: Path) -> None:
    """Both sessions run; were they the same one, nothing could ever differ."""
    build(export, tmp_path, resolve_targets(["cpu"]), profile=profile)
    engine = read_manifest(tmp_path).targets[0].engines["step"]
    spec = graph_spec("step", read_index(export).model, "float32")
    feeds = [random_inputs(spec, axes, np.random.default_rng(0)) for axes in shapes_to_try(spec, profile)]
    path = tmp_path / "blobs/sha256" / engine.file.sha256
    reference, optimised = (list(run(path, feeds, optimised=which)) for which in (False, True))
    worst = max(max(errors(a, b).values()) for a, b in zip(reference, optimised, strict=True))
    print(f"largest relative error of the small step: {worst:.2g}, allowed {MAX_RELATIVE_ERROR:g}")
    assert 0 < worst <= MAX_RELATIVE_ERROR
