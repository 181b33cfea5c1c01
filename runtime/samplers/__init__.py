"""Samplers: each is one recurrence, written as its paper writes it (see `sdxl_trt.runtime.table`)."""

from sdxl_trt.runtime.samplers.base import Recurrence, Sampler
from sdxl_trt.runtime.samplers.catalogue import SAMPLERS, find_sampler, variants
from sdxl_trt.runtime.samplers.making import make_table
from sdxl_trt.runtime.samplers.options import SamplerOptions
from sdxl_trt.runtime.samplers.presets import Preset, choose_preset

__all__ = [
    "SAMPLERS",
    "Preset",
    "Recurrence",
    "Sampler",
    "SamplerOptions",
    "choose_preset",
    "find_sampler",
    "make_table",
    "variants",
]
