"""onnxruntime as if it had CUDA: the real library's CPU sessions, on the streams and memory of the recording driver."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import onnxruntime as real
from recording_driver import RecordingDriver

from sdxl_trt.runtime.ort_cuda import PROVIDER

BOTH = [PROVIDER, "CPUExecutionProvider"]


class Shim(ModuleType):
    """onnxruntime with a CUDA provider, which is the CPU's on the streams of the driver."""

    def __init__(self, driver: RecordingDriver) -> None:
        super().__init__("onnxruntime")
        self.driver, self.providers = driver, BOTH
        self.options: dict[str, str] = {}
        """Of the provider, as the last session was given them."""
        self.runs = list[tuple[str, str]]()
        self.released = list[int]()
        self.__version__ = real.__version__

    def __getattr__(self, name: str) -> Any:
        return getattr(real, name)

    def get_available_providers(self) -> list[str]:
        return BOTH

    def InferenceSession(self, path: Path, options: Any, providers: Any) -> Session:  # noqa: N802
        ((name, self.options),) = providers
        assert name == PROVIDER
        return Session(self, real.InferenceSession(path, options, providers=BOTH[1:]))


class Session:
    def __init__(self, shim: Shim, session: Any) -> None:
        self.shim, self.session = shim, session
        self.stream = int(shim.options["user_compute_stream"])
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs

    def get_providers(self) -> list[str]:
        return self.shim.providers

    def release_captured_graph(self, number: int) -> None:
        if self.shim.driver.recording is not None:
            raise RuntimeError("released inside a recording")
        self.shim.released.append(number)

    def io_binding(self) -> Binding:
        return Binding(self.session.io_binding())

    def run_with_iobinding(self, binding: Binding, options: Any) -> None:
        if self.shim.driver.recording is not None:
            raise RuntimeError("runs inside a recording of the caller's")
        keys = ("gpu_graph_id", "disable_synchronize_execution_providers")
        self.shim.runs.append(tuple(options.get_run_config_entry(key) for key in keys))  # type: ignore[arg-type]
        self.shim.driver.launch(self.stream, lambda: self.session.run_with_iobinding(binding.binding))


class Binding:
    def __init__(self, binding: Any) -> None:
        self.binding = binding

    def bind_input(self, name: str, place: str, ordinal: int, *rest: Any) -> None:
        assert (place, ordinal) == ("cuda", 0)
        self.binding.bind_input(name, "cpu", 0, *rest)

    def bind_output(self, name: str, place: str, ordinal: int, *rest: Any) -> None:
        assert (place, ordinal) == ("cuda", 0)
        self.binding.bind_output(name, "cpu", 0, *rest)
