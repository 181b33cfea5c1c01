"""The key of an engine: a hash of everything that can change it.

In it: the graph's bytes; the bytes of every weights file it reads; the flavour, its library's version and the flags it
is given, by name; compute capabilities and processor; precision; the shapes of the graph's own axes; the version of
the tensors' meaning (`SPEC_VERSION`); and `RECIPE`, the version of the code here that compiles.

Not in it: the version of this tool. Most releases compile as the one before did, and a key that changed with each
would build gigabytes anew for nothing; whoever changes what is compiled from the same ingredients raises `RECIPE`.
Nor the shapes of axes that the graph lacks: text encoders survive a change of picture sizes. Shapes count for
onnxruntime too, although its graph is the same for all: they are what it was accepted at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sdxl_trt.files import sha256_json
from sdxl_trt.spec import SPEC_VERSION, Range

RECIPE = 1
"""Version of `trt.py` and `ort.py` as far as their engines depend on it."""


def engine_key(
    *,
    graph: str,
    weights: Mapping[str, str],
    flavour: str,
    flavour_version: str,
    flags: Iterable[str],
    sms: Iterable[int],
    processor: str,
    precision: str,
    ranges: Mapping[str, Range],
) -> str:
    """The key, 64 hexadecimal digits.

    Args:
        graph: SHA-256 of the ONNX file.
        weights: SHA-256 of each weights file, by the location that stands in the graph.
        flavour: its name.
        flavour_version: of its library.
        flags: builder flags as in `Flavour.flags`, in any order.
        sms: compute capabilities, in any order.
        processor: instruction set.
        precision: 'float16' or 'float32'.
        ranges: of the graph's axes, by name.
    """
    return sha256_json(
        {
            "graph": graph,
            "weights": dict(weights),
            "flavour": flavour,
            "flavour_version": flavour_version,
            "flags": sorted(flags),
            "sms": sorted(sms),
            "processor": processor,
            "precision": precision,
            "ranges": {axis: [r.min, r.opt, r.max] for axis, r in ranges.items()},
            "spec": SPEC_VERSION,
            "recipe": RECIPE,
        }
    )
