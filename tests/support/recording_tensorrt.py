"""What the runtime calls of TensorRT, as far as it can be had without a GPU: real enumerations, and engines in numpy.

A plan is JSON that lists tensors; its engine gives twice each input as the output of the same place, and puts that on
the recording driver's streams. Like TensorRT it reads a plan in pieces, and says no by None or False and in its log.
`Misuse` is raised for what TensorRT does not answer for.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import tensorrt_rtx as real
from recording_driver import Misuse, RecordingDriver

MAGIC = b"plan"
HEADER = 64
WEIGHTS = 12_345
"""Bytes that each engine has."""
SCRATCH, PASSING = 4096, 1024
"""Bytes that it works in, and more where weights are streamed."""
ENUMERATIONS = (
    "DataType",
    "DynamicShapesKernelSpecializationStrategy",
    "EngineStat",
    "EngineInvalidityDiagnostics",
    "EngineValidity",
    "ExecutionContextAllocationStrategy",
    "SeekPosition",
    "TensorIOMode",
    "TensorLocation",
)


def make_plan(tensors: Mapping[str, Any], *, padding: int = 0) -> bytes:
    """A plan: inputs and outputs by name with dtype, shape (−1: dynamic), and for inputs the profile."""
    body = json.dumps(dict(tensors)).encode()
    header = MAGIC + len(body).to_bytes(8, "little")
    return header.ljust(HEADER, b"\0") + body + bytes(padding)


class FakeTensorRT(ModuleType):
    """The module, over a driver."""

    def __init__(self, name: str, version: str, driver: RecordingDriver) -> None:
        super().__init__(name)
        self.__version__, self.driver = version, driver
        self.calls = list[str]()
        self.say = dict[str, Any]()
        """What a call answers instead of yes; with it the log gets `message`."""
        self.message = ""
        self.ILogger, self.IStreamReaderV2 = real.ILogger, object
        for enumeration in ENUMERATIONS:
            setattr(self, enumeration, getattr(real, enumeration))

    def Runtime(self, log: Any) -> Runtime:  # noqa: N802
        return Runtime(self, log)


class Runtime:
    def __init__(self, trt: FakeTensorRT, log: Any) -> None:
        self.trt, self.log = trt, log
        self.defer_weights_loading = False

    engine_header_size = HEADER

    def get_engine_validity(self, header: bytes) -> tuple[Any, int]:
        self.trt.calls.append("get_engine_validity")
        assert len(header) == HEADER
        if header.startswith(MAGIC):
            return self.trt.say.get("get_engine_validity", (real.EngineValidity.VALID, 0))
        return real.EngineValidity.INVALID, int(real.EngineInvalidityDiagnostics.MALFORMED_ENGINE)

    def deserialize_cuda_engine(self, reader: Any) -> CudaEngine | None:
        tensors = read_plan(self.trt, self.log, reader, "deserialize_cuda_engine")
        return tensors and CudaEngine(self.trt, self.log, tensors, loaded=not self.defer_weights_loading)


def read_plan(trt: FakeTensorRT, log: Any, reader: Any, call: str) -> dict[str, Any] | None:
    """The tensors of a plan that is read from its beginning; none where the call is to fail, or the plan ends early."""
    trt.calls.append(call)
    if call in trt.say:
        log.log(real.ILogger.ERROR, trt.message)
        return None
    read = _read(reader, HEADER)
    size = int.from_bytes(read[4:12], "little")
    reader.seek(HEADER, real.SeekPosition.SET)
    body = _read(reader, size)
    if len(read) < HEADER or len(body) < size:
        log.log(real.ILogger.ERROR, "the plan ends early")
        return None
    tensors: dict[str, Any] = json.loads(body)
    return tensors


def _read(reader: Any, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := reader.read(size - len(data), 0)):
        data += part
    return data


class CudaEngine:
    def __init__(self, trt: FakeTensorRT, log: Any, tensors: dict[str, Any], *, loaded: bool) -> None:
        self.trt, self.log, self.tensors = trt, log, tensors
        self.budget, self.deferred, self.weights_loaded = 0, not loaded, loaded
        weakref.finalize(self, trt.calls.append, "~ICudaEngine")

    def load_weights_async(self, reader: Any, stream: int) -> bool:
        if not self.deferred or self.weights_loaded:
            raise Misuse("weights that are loaded already")
        self.weights_loaded = read_plan(self.trt, self.log, reader, "load_weights_async") is not None
        self.trt.driver.launch(stream, lambda: None)
        return self.weights_loaded

    def unload_weights(self) -> bool:
        self.trt.calls.append("unload_weights")
        if not self.deferred or not self.weights_loaded:
            raise Misuse("no weights to unload")
        self.weights_loaded = False
        return True

    @property
    def streamable_weights_size(self) -> int:
        return int(self.trt.say.get("streamable_weights_size", 0))

    @property
    def weight_streaming_budget_v2(self) -> int:
        return self.budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, size: int) -> None:
        self.trt.calls.append(f"weight_streaming_budget_v2 = {size}")
        if "create_execution_context" in self.trt.calls or not 0 <= size <= self.streamable_weights_size:
            raise Misuse(f"a budget of {size} bytes, or too late")
        if "weight_streaming_budget_v2" in self.trt.say:
            self.log.log(real.ILogger.ERROR, self.trt.message)
            return
        self.budget = size

    @property
    def device_memory_size_v2(self) -> int:
        return SCRATCH if self.budget == self.streamable_weights_size else SCRATCH + PASSING

    def get_engine_stat(self, stat: Any) -> int:
        assert stat == real.EngineStat.TOTAL_WEIGHTS_SIZE
        return WEIGHTS

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return real.TensorIOMode.INPUT if "profile" in self.tensors[name] else real.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(real.DataType, self.tensors[name]["dtype"])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name]["shape"])

    def get_tensor_location(self, name: str) -> Any:
        return getattr(real.TensorLocation, self.tensors[name].get("location", "DEVICE"))

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        assert profile == 0
        profiles: list[list[int]] = self.tensors[name]["profile"]
        return profiles

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig(self.trt)

    def create_execution_context(self, config: RuntimeConfig) -> ExecutionContext | None:
        self.trt.calls.append("create_execution_context")
        assert config.strategy == real.ExecutionContextAllocationStrategy.USER_MANAGED
        if "create_execution_context" in self.trt.say:
            self.log.log(real.ILogger.ERROR, self.trt.message)
            return None
        return ExecutionContext(self, config)


class RuntimeConfig:
    def __init__(self, trt: FakeTensorRT) -> None:
        self.trt = trt
        self.strategy = self.cache = None
        self.dynamic_shapes_kernel_specialization_strategy = real.DynamicShapesKernelSpecializationStrategy.LAZY

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class RuntimeCache:
    def __init__(self) -> None:
        self.kernels = set[str]()

    def serialize(self) -> bytes:
        return b"kernels\n" + "\n".join(sorted(self.kernels)).encode()

    def deserialize(self, blob: bytes) -> bool:
        first, *kernels = blob.decode(errors="replace").split("\n")
        if first != "kernels":
            return False
        self.kernels = set(kernels)
        return True


class ExecutionContext:
    def __init__(self, engine: CudaEngine, config: RuntimeConfig) -> None:
        self.engine, self.config, self.trt = engine, config, engine.trt
        self.shapes = dict[str, tuple[int, ...]]()
        self.addresses = dict[str, int]()
        self.memory, self.profile = (0, 0), None

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile = index
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        if memory % 256 or size < self.engine.device_memory_size_v2:
            raise Misuse(f"{size} bytes at {memory:#x} to work in")
        self.memory = memory, size

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.tensors

    def infer_shapes(self) -> list[str]:
        return [name for name, tensor in self.engine.tensors.items() if "profile" in tensor and name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        inputs = [name for name, tensor in self.engine.tensors.items() if "profile" in tensor]
        outputs = [name for name in self.engine.tensors if name not in inputs]
        return self.shapes[inputs[outputs.index(name)]]

    def is_stream_capturable(self, stream: int) -> bool:
        return bool(self.trt.say.get("is_stream_capturable", True))

    def execute_async_v3(self, stream: int) -> bool:
        self.trt.calls.append("execute_async_v3")
        if self.infer_shapes() or set(self.addresses) != set(self.engine.tensors) or self.profile is None:
            raise Misuse("a run without shapes, addresses or profile")
        if not self.engine.weights_loaded:
            raise Misuse("a run without weights")
        self.trt.driver.tensor(self.memory[0], (self.memory[1],), np.uint8)  # is memory that is lent
        if "execute_async_v3" in self.trt.say:
            self.engine.log.log(real.ILogger.ERROR, self.trt.message)
            return False
        self._compile()
        self.trt.driver.launch(stream, self._run)
        return True

    def _compile(self) -> None:
        if self.config.cache is None:
            return
        eager = real.DynamicShapesKernelSpecializationStrategy.EAGER
        assert self.config.dynamic_shapes_kernel_specialization_strategy == eager
        kernel = str(sorted(self.shapes.items()))
        if kernel not in self.config.cache.kernels:
            if self.trt.driver.recording is not None:
                raise Misuse("kernels are compiled while a graph is recorded")
            self.trt.calls.append("compile")
            self.config.cache.kernels.add(kernel)

    def _run(self) -> None:
        arrays = {name: self._array(name) for name in self.engine.tensors}
        inputs = [name for name, tensor in self.engine.tensors.items() if "profile" in tensor]
        outputs = [name for name in self.engine.tensors if name not in inputs]
        for source, target in zip(inputs, outputs, strict=False):
            arrays[target][...] = 2 * arrays[source]

    def _array(self, name: str) -> Any:
        dtype = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32"}[self.engine.tensors[name]["dtype"]]
        shape = self.shapes.get(name) or self.get_tensor_shape(name)
        return self.trt.driver.tensor(self.addresses[name], shape, dtype)
