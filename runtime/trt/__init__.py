"""Engines of TensorRT and of TensorRT for RTX. API-checked; what they do on a GPU is not measured."""

from sdxl_trt.runtime.trt.engine import TrtEngine
from sdxl_trt.runtime.trt.library import LIBRARIES
from sdxl_trt.runtime.trt.parking import Parked, ParkingEngine

__all__ = ["LIBRARIES", "Parked", "ParkingEngine", "TrtEngine"]
