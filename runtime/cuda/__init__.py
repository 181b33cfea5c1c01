"""A device over NVIDIA's driver, through cuda-python's bindings. API-checked; what it does on a GPU is not measured."""

from sdxl_trt.runtime.cuda.device import CudaDevice

__all__ = ["CudaDevice"]
