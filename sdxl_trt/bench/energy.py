"""Energy that a GPU takes, as NVML counts it. Source for the calls: NVIDIA's NVML API reference."""

from __future__ import annotations

import importlib
from typing import Any

from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.device import Device


class EnergyMeter:
    """What a device takes. (Where it is a part of a GPU, NVML tells of all of that.)

    Args:
        device: where engines run.
    """

    def __init__(self, device: Device) -> None:
        self._nvml: Any = None
        self.reason = ""
        """Why there is nothing to read."""
        if not isinstance(device, CudaDevice):
            self.reason = "engines ran on the processor, and NVML tells of NVIDIA GPUs alone"
            return
        try:
            nvml = importlib.import_module("cuda.bindings.nvml")
            nvml.init_v2()
            self._gpu = nvml.device_get_handle_by_pci_bus_id_v2(device.pci_bus_id)
            nvml.device_get_total_energy_consumption(self._gpu)  # GPUs before Volta have no such counter
        except Exception as error:  # the bindings' exceptions have no common base, and may not be there at all
            self.reason = f"NVML: {error}"
            return
        self._nvml = nvml

    def read(self) -> float | None:
        """Joules since the driver was loaded; None for the `reason`."""
        if self._nvml is None:
            return None
        return float(self._nvml.device_get_total_energy_consumption(self._gpu)) / 1000
