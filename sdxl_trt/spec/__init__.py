"""The contract between the rooms: what tensors every graph has, what a sampler column holds, what shapes engines take.

Later versions add to it; nothing here changes meaning under the same `SPEC_VERSION`.
"""

from sdxl_trt.spec.column import COLUMN_WIDTH, HISTORY, Column
from sdxl_trt.spec.graphs import GRAPHS, GraphSpec, TensorSpec, graph_spec, model_graphs
from sdxl_trt.spec.model import ModelSpec, TextEncoderSpec, UNetSpec, VaeSpec
from sdxl_trt.spec.profile import LATENT_SCALE, Profile, Range, parse_size
from sdxl_trt.spec.work import Term, Work

SPEC_VERSION = 1
"""Version of the tensors, columns and profiles described here; part of every engine's key."""

__all__ = [
    "COLUMN_WIDTH",
    "GRAPHS",
    "HISTORY",
    "LATENT_SCALE",
    "SPEC_VERSION",
    "Column",
    "GraphSpec",
    "ModelSpec",
    "Profile",
    "Range",
    "TensorSpec",
    "Term",
    "TextEncoderSpec",
    "UNetSpec",
    "VaeSpec",
    "Work",
    "graph_spec",
    "model_graphs",
    "parse_size",
]
