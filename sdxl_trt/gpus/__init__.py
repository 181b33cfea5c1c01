"""The GPU catalogue: what a build, a plan or a benchmark may know about a GPU that is not in this machine.

The figures are in the .toml files beside this one, the documents they are from in sources.toml.
"""

from sdxl_trt.gpus.catalogue import load_gpus, parse_gpus, parse_sources
from sdxl_trt.gpus.lookup import find_gpu
from sdxl_trt.gpus.model import ARCHITECTURES, CPU, FORMS, PORTABLE, PORTABLE_SMS, RTX_SMS, Gpu, able_flavours

__all__ = [
    "ARCHITECTURES",
    "CPU",
    "FORMS",
    "PORTABLE",
    "PORTABLE_SMS",
    "RTX_SMS",
    "Gpu",
    "able_flavours",
    "find_gpu",
    "load_gpus",
    "parse_gpus",
    "parse_sources",
]
