"""An execution context with the addresses of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from sdxl_trt.errors import UnsupportedSize
from sdxl_trt.runtime.cuda.context import Owned
from sdxl_trt.runtime.device import Buffer, Stream
from sdxl_trt.runtime.trt import rtx
from sdxl_trt.runtime.trt.library import refused

if TYPE_CHECKING:
    from sdxl_trt.runtime.trt.engine import TrtEngine

_FIX = "load the pipeline again; if that does not help, build the bundle again on this host"


class TrtBinding:
    """An engine at one set of shapes, ready to be recorded: its context is used for nothing else.

    Args:
        engine: what runs.
        buffers: by name, all of its tensors.

    Raises:
        UnsupportedSize: shapes that the plan was not built for.
        OutOfMemory: there is too little memory to run in.
        RunError: the library failed.
    """

    def __init__(self, engine: TrtEngine, buffers: Mapping[str, Buffer]) -> None:
        self._engine = engine
        self._buffers = dict(buffers)  # kept alive: the context has only their addresses
        check_shapes(engine, buffers)
        device = engine.device
        device.make_current()
        stream = device.stream()
        self._memory, size = device.arenas.block(engine.arena)
        device.wait_idle()  # what still runs may use that memory, or these buffers
        self._context = context = self._create_context(stream)
        context.set_device_memory(self._memory.handle, size)
        self._set_tensors(context)
        self.enqueue(stream)
        device.wait_idle()
        self.capturable = not engine.streams
        if engine.kernels is not None:
            engine.kernels.save()
            self.capturable &= rtx.capturable(context, stream.handle)

    def enqueue(self, stream: Stream) -> None:
        """Put one run on the stream.

        Raises:
            RunError: the library failed; carries its message.
        """
        context = self._context
        if not context.execute_async_v3(cast(Owned, stream).handle):
            raise self._refused("could not be run")

    def _create_context(self, stream: Owned) -> Any:
        engine = self._engine
        engine.log.errors.clear()
        context = engine.cuda_engine.create_execution_context(engine.config)
        if context is None or not context.set_optimization_profile_async(0, stream.handle):
            raise self._refused("could not be prepared")
        return context

    def _set_tensors(self, context: Any) -> None:
        engine = self._engine
        done = [context.set_input_shape(name, self._buffers[name].shape) for name in engine.inputs]
        tensors = (*engine.inputs, *engine.outputs)
        done += [context.set_tensor_address(name, self._buffers[name].pointer) for name in tensors]
        if not all(done) or context.infer_shapes():
            raise self._refused("refuses its tensors")
        for name in engine.outputs:
            shape, bound = tuple(context.get_tensor_shape(name)), self._buffers[name].shape
            if shape != bound:  # it would write somewhere else
                raise ValueError(f"output {name} of {engine.name} has shape {shape}, and a buffer of {bound}")

    def _refused(self, how: str) -> Exception:
        engine = self._engine
        return refused(f"the engine {engine.name} {how}", engine.log, engine.device, fix=_FIX)


def check_shapes(engine: TrtEngine, buffers: Mapping[str, Buffer]) -> None:
    """Make sure that a plan takes these shapes.

    Raises:
        UnsupportedSize: it does not; names the first tensor, and the shapes that it takes.
    """
    for name in engine.inputs:
        smallest, _, largest = map(tuple, engine.cuda_engine.get_tensor_profile_shape(name, 0))
        shape = buffers[name].shape
        inside = len(shape) == len(smallest) and all(
            low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True)
        )
        if not inside:
            raise UnsupportedSize(
                f"the engine {engine.name} was not built for this shape",
                got=f"{name} {list(shape)}",
                expected=f"{list(smallest)} to {list(largest)}",
                fix="build the bundle again with --sizes and --batch that have room for it",
            )
