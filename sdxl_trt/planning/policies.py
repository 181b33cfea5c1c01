"""Where weights are while a picture is made, and the memory that each way needs at its peak.

resident    all engines stay; whatever runs has its activations
swap        one engine at a time is loaded, runs, and makes place for the next
stream      as swap, and the denoising engine's weights pass through as much memory as is left, every step
            (TensorRT's weight streaming; such a step is not captured as a CUDA graph)

All bytes are of engines; what the card's driver and context take beside them is `RESERVE`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from sdxl_trt.errors import OutOfMemory
from sdxl_trt.planning.components import Component, Components

RESERVE = 700_000_000
"""Bytes of a card that are not for engines: a CUDA context with its libraries (0.3 to 0.5 GB), and a desktop's windows.
An assumption."""

LEAST_STREAMED = 0.1
"""Part of the weights that streaming keeps in memory at least: the layers that run, and those that come next. An
assumption; the largest layer has one per cent of the weights of SDXL's UNet."""


def gb(size: int) -> str:
    """Bytes as 9.60 GB."""
    return f"{size / 1e9:.2f} GB"


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a policy comes to."""

    policy: str
    peak: int
    """Bytes of engines at once."""
    least: int
    """The least bytes that it works with; less than `peak` where streaming uses what there is."""
    loaded: int
    """Bytes of weights that are brought to the card for one request."""
    streamed: int = 0
    """Of these, in the loop."""

    def fits(self, available: int) -> bool:
        """With so many bytes for engines."""
        return self.least <= available


def _resident(components: Components, available: int) -> Memory:  # noqa: ARG001  takes what it takes
    peak = sum(each.weights for each in components) + max(each.activations for each in components)
    return Memory(policy="resident", peak=peak, least=peak, loaded=0)


def _swap(components: Components, available: int) -> Memory:  # noqa: ARG001
    peak = max(_whole(each) for each in components)
    return Memory(policy="swap", peak=peak, least=peak, loaded=_used_weights(components))


def _stream(components: Components, available: int) -> Memory:
    others = max((_whole(each) for each in components if not each.streams), default=0)
    streams = [each for each in components if each.streams]
    kept = [_kept(each, available) for each in streams]
    return Memory(
        policy="stream",
        peak=max([others, *(each.activations + bytes_ for each, bytes_ in zip(streams, kept, strict=True))]),
        least=max([others, *(each.activations + _least_kept(each) for each in streams)]),
        loaded=_used_weights(tuple(each for each in components if not each.streams)) + sum(kept),
        streamed=sum(each.calls * (each.weights - bytes_) for each, bytes_ in zip(streams, kept, strict=True)),
    )


POLICIES: dict[str, Callable[[Components, int], Memory]] = {"resident": _resident, "swap": _swap, "stream": _stream}
"""By name, the fastest first; each takes the components and the bytes for engines."""


def policies(components: Components, available: int) -> tuple[Memory, ...]:
    """Every policy with so many bytes for engines, whether it fits or not."""
    return tuple(policy(components, available) for policy in POLICIES.values())


def least_memory(components: Components) -> int:
    """Bytes for engines below which no policy works."""
    return min(each.least for each in policies(components, 0))


def choose(components: Components, available: int, wanted: str | None = None, *, reserve: int = RESERVE) -> Memory:
    """The first policy that fits, or the wanted one.

    Args:
        components: the engines.
        available: bytes for engines.
        wanted: one of `POLICIES`.
        reserve: bytes of the card beside them, for the message.

    Raises:
        OutOfMemory: none fits, or the wanted one does not; says the least memory that does.
    """
    possible = [each for each in policies(components, available) if wanted in (None, each.policy)]
    for each in possible:
        if each.fits(available):
            return each
    best = min(possible, key=lambda each: each.least)
    largest = max(components, key=lambda each: each.activations)
    raise OutOfMemory(
        f"there is no plan for this memory{f' with {wanted}' if wanted else ''}",
        got=f"{gb(available)} for engines, beside {gb(reserve)} for the driver, CUDA's context and tensors",
        expected=f"a card of at least {gb(best.least + reserve)}, with the policy {best.policy}",
        fix=f"smaller pictures or fewer at once: {largest.name} has {gb(largest.activations)} of activations"
        + ("; or another --memory" if wanted else ""),
    )


def _whole(component: Component) -> int:
    return component.weights + component.activations if component.calls else 0


def _used_weights(components: Components) -> int:
    return sum(each.weights for each in components if each.calls)


def _least_kept(component: Component) -> int:
    return math.ceil(LEAST_STREAMED * component.weights)


def _kept(component: Component, available: int) -> int:
    """Bytes of a streamed engine's weights that stay."""
    return min(max(available - component.activations, _least_kept(component)), component.weights)
