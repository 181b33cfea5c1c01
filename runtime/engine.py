"""The first seam: a compiled graph as named tensors that are bound to buffers and enqueued on a stream.

Everything above it is the same code for all flavours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from sdxl_trt.errors import BundleError
from sdxl_trt.runtime.device import Buffer, Device, Stream, Work
from sdxl_trt.runtime.recent import Recent
from sdxl_trt.spec import TensorSpec

Axes = Mapping[str, int]
"""Lengths of the dynamic axes by name: rows, slots, height, width, tokens."""


class Binding(Protocol):
    """An engine with a buffer behind every tensor: all that a device needs to record it and run it again and again.

    Two bindings of an engine share its weights and nothing that changes, but only one of them runs at a time.
    """

    capturable: bool
    """A device may record its runs."""

    def enqueue(self, stream: Stream) -> None:
        """Put one run on the stream.

        Raises:
            RunError: the engine failed.
        """


class Engine(Protocol):
    """A compiled graph."""

    name: str
    """Of the graph, for messages."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """By name."""

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """By name."""

    def use(self, kept: Recent[Any, Any]) -> None:
        """Be open from now on, before anything is allocated to run it with.

        Args:
            kept: has all bindings and buffers of whoever asks; is cleared before the engine makes room for another.
        """

    def bind(self, buffers: Mapping[str, Buffer]) -> Binding:
        """Put a buffer behind every input and output; shapes of the run are those of the buffers.

        May run the engine once to prepare it for these shapes, which writes the output buffers.
        """

    def close(self) -> None:
        """Release the graph and its weights, whoever still holds this object. No binding may be left."""


class AlwaysOpen:
    """An engine that makes room for no other."""

    def use(self, kept: Recent[Any, Any]) -> None:
        """It is open until `close`."""


SHAPES = 4
"""Shapes that a `Caller` keeps recorded beside those that were warmed up."""


class Caller:
    """An engine as a function of host arrays, for what runs once per request (text encoders, VAE).

    Buffers of the last shape are kept for the next call; where work is recorded, those of the last few.
    """

    def __init__(self, engine: Engine, device: Device) -> None:
        self._engine, self._device = engine, device
        self._stream = device.stream()
        self._prepared = Recent[frozenset[tuple[str, int]], tuple[dict[str, Buffer], Work]](
            SHAPES if device.captures else 1
        )

    def __call__(self, axes: Axes, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run on arrays of the engine's dtypes; returns every output, shapes as in the engine's signature.

        Raises:
            RunError: the engine failed.
        """
        buffers, work = self._prepared.get(frozenset(axes.items()), lambda: self._prepare(axes))
        for name, array in inputs.items():
            self._device.upload(buffers[name], array, self._stream)
        work(self._stream)
        return {name: self._device.download(buffers[name], self._stream) for name in self._engine.outputs}

    def warm_up(self, axes: Axes) -> None:
        """Prepare a shape for good, and run it once on zeros or what was there last.

        Raises:
            RunError: the engine failed.
        """
        self._prepared.keep(frozenset(axes.items()), lambda: self._prepare(axes))
        self(axes)

    def _prepare(self, axes: Axes) -> tuple[dict[str, Buffer], Work]:
        self._engine.use(self._prepared)
        buffers = allocate(self._engine, self._device, axes)
        return buffers, record(self._engine.bind(buffers), self._device, self._stream)


def record(binding: Binding, device: Device, stream: Stream, then: Work | None = None) -> Work:
    """A run of an engine, and what follows it, as work to repeat: recorded, unless the engine cannot be."""

    def work(stream: Stream) -> None:
        binding.enqueue(stream)
        if then is not None:
            then(stream)

    return device.capture(work, stream) if binding.capturable else work


def allocate(engine: Engine, device: Device, axes: Axes) -> dict[str, Buffer]:
    """A zero-filled buffer for every tensor of an engine, by name."""
    tensors = (*engine.inputs.values(), *engine.outputs.values())
    return {
        tensor.name: device.allocate(tensor.at(axes), tensor.dtype, f"tensor {tensor.name} of {engine.name}")
        for tensor in tensors
    }


def check_signature(
    what: str, expected: tuple[TensorSpec, ...], got: Mapping[str, tuple[str, tuple[int | None, ...]]]
) -> None:
    """Compare a signature with the one it must have: names, dtypes, ranks and fixed sizes.

    Args:
        what: the engine, in words.
        expected: the tensors it must have.
        got: by name, dtype and shape of those it has; None for a size that is not fixed.

    Raises:
        BundleError: they differ; names the first tensor that does.
    """
    wanted = {tensor.name: tensor for tensor in expected}
    for name in (*wanted, *got):
        if name not in got or name not in wanted:
            raise _other_signature(what, "no" if name in wanted else "a", "a" if name in wanted else "no", name)
        tensor, (dtype, shape) = wanted[name], got[name]
        sizes = tuple(size if isinstance(size, int) else None for size in tensor.shape)
        fits = len(shape) == len(sizes) and all(
            a == b for a, b in zip(shape, sizes, strict=True) if a is not None and b is not None
        )
        if dtype != tensor.dtype or not fits:
            raise _other_signature(what, f"{dtype} {list(shape)}", f"{tensor.dtype} {list(tensor.shape)}", name)


def _other_signature(what: str, got: str, expected: str, name: str) -> BundleError:
    return BundleError(
        f"{what} has other tensors than it should",
        got=f"{got} tensor {name!r}",
        expected=f"{expected} tensor {name!r}",
        fix="build the bundle again with this version of sdxl-trt",
    )
