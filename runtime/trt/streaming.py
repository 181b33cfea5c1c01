"""Weight streaming: weights lie in host memory, and pass through a part of the GPU's while a step runs.

How much of them stays is a budget in bytes of streamable weights, set before anything runs. Source: "Weight Streaming"
in NVIDIA's documentation of TensorRT 11.4 and TensorRT for RTX 1.7. API-checked; not measured.
"""

from __future__ import annotations

from typing import Any

from sdxl_trt.errors import OutOfMemory
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.cuda.arenas import SPARE
from sdxl_trt.runtime.trt.library import refused


def place_weights(cuda_engine: Any, name: str, device: CudaDevice, log: Any, *, streams: bool) -> int:
    """Bring to the GPU what is to stay there of an engine's streamable weights; all of them where nothing streams.

    Args:
        cuda_engine: the plan, of which nothing runs yet.
        name: of the engine.
        device: where it will run.
        log: TensorRT's.
        streams: keep only what fits beside the memory that the engine works in; for engines built for that.

    Returns:
        Bytes of weights that stay in host memory.

    Raises:
        OutOfMemory: there is too little memory even where all weights are streamed.
        RunError: the library refuses the budget.
    """
    streamable = int(cuda_engine.streamable_weights_size)
    if not streamable:  # not built for it: the weights are on the GPU
        return 0
    log.errors.clear()
    budget = streamable
    if streams:
        cuda_engine.weight_streaming_budget_v2 = 0  # what it works in has room for passing weights from now on
        budget = min(_room(name, device, int(cuda_engine.device_memory_size_v2)), streamable)
    cuda_engine.weight_streaming_budget_v2 = budget
    if cuda_engine.weight_streaming_budget_v2 != budget:
        what = f"the engine {name} refuses {budget:,} bytes for its weights"
        raise refused(what, log, device, asked=budget, fix="--memory swap, or build the bundle again on this host")
    return streamable - budget


def _room(name: str, device: CudaDevice, scratch: int) -> int:
    """Bytes of free memory for weights."""
    memory, needed = device.memory(), scratch + SPARE
    if memory.free < needed:
        raise OutOfMemory(
            f"the GPU has too little memory to stream the weights of {name}",
            got=f"{memory.free / 1e9:.2f} of {memory.total / 1e9:.2f} GB free",
            expected=f"at least {needed / 1e9:.2f} GB, beside all weights: {scratch / 1e9:.2f} GB to run in at the "
            f"engine's largest shapes, {SPARE / 1e9:.2f} GB for tensors",
            fix="build the bundle with smaller --sizes or --batch; or end other processes on the GPU",
        )
    return memory.free - needed
