"""What makes a picture: the engines in the order they run, at which shapes, how often; and options that change that."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sdxl_trt.bundle import conflict
from sdxl_trt.planning.models import ModelCosts, Scratch
from sdxl_trt.spec import LATENT_SCALE, Work
from sdxl_trt.spec.profile import check_tile

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for at once."""

    size: Size
    """(width, height) in pixels."""
    steps: int
    batch: int

    def axes(self, rows: int, slots: int) -> dict[str, int]:
        """The axes of any graph, for one prompt chunk of 77 tokens."""
        width, height = (edge // LATENT_SCALE for edge in self.size)
        return {"rows": rows, "slots": slots, "width": width, "height": height, "tokens": 77}


@dataclass(frozen=True, kw_only=True)
class Component:
    """One engine."""

    name: str
    graph: str
    """What it was built from: its name, without the model's where there are two."""
    work: Work
    axes: dict[str, int]
    """Of each call."""
    calls: int
    """For all pictures of the request; 0 where they do without it."""
    streams: bool = False
    """Its weights may be streamed: it runs in the denoising loop."""
    plan: int | None = None
    """Bytes of the engine, where it is built."""
    scratch: Scratch | None = None
    """What TensorRT said of it, where it was opened on this host."""

    @property
    def weights(self) -> int:
        """Bytes."""
        return self.work.weights

    @property
    def activations(self) -> int:
        """Bytes at their peak, inputs and outputs among them: TensorRT's own figure, or else the graph's liveness."""
        if not self.calls:
            return 0
        if self.scratch:
            return self.scratch.size + sum(tensor.bytes_at(self.axes) for tensor in self.scratch.tensors)
        return self.work.activations(self.axes)


Components = tuple[Component, ...]


class Option(Protocol):
    """Something that changes what runs: a frozen dataclass of its settings, which takes components and gives others."""

    def __call__(self, components: Components, request: Request, /) -> Components:
        """The components with the option."""


def components(costs: ModelCosts, request: Request, options: Sequence[Option] = ()) -> Components:
    """The engines of text-to-image with guidance, in the order they run, changed by the options in their order.

    The image encoder comes last and is not called: pictures from text do without it.
    """
    guided = request.axes(rows=2 * request.batch, slots=request.batch)
    each = request.axes(rows=1, slots=1)  # the VAE takes one picture at a time
    calls = {"step": request.steps, "vae_decoder": request.batch, "vae_encoder": 0}
    found: Components = tuple(
        Component(
            name=name,
            graph=name,
            work=work,
            axes=each if name.startswith("vae") else guided,
            calls=calls.get(name, 1),
            streams=name == "step",
            plan=costs.plans.get(name),
            scratch=costs.scratch.get(name),
        )
        for name, work in costs.works.items()
        if name != "unet"
    )
    for option in options:
        found = option(found, request)
    return found


@dataclass(frozen=True, kw_only=True)
class Unguided:
    """No guidance, as Turbo and Lightning models are run: one row a picture."""

    def __call__(self, components: Components, request: Request) -> Components:
        """Half the rows everywhere."""
        axes = request.axes(rows=request.batch, slots=request.batch)
        return tuple(
            each if each.graph.startswith("vae") else dataclasses.replace(each, axes=axes) for each in components
        )


@dataclass(frozen=True, kw_only=True)
class Tiled:
    """The VAE has pictures in tiles that overlap by a quarter.

    Raises:
        UsageError: no edge that they can have.
    """

    edge: int
    """In pixels."""

    def __post_init__(self) -> None:
        check_tile(self.edge)

    def __call__(self, components: Components, request: Request) -> Components:
        """More calls, of no more than a tile. Those at the edges of the picture, which are less, count as whole."""
        if max(request.size) <= self.edge:
            return components
        width, height = (min(edge, self.edge) for edge in request.size)
        axes = dataclasses.replace(request, size=(width, height)).axes(rows=1, slots=1)
        tiles = math.prod(math.ceil(edge / (self.edge * 3 // 4)) for edge in request.size)
        return tuple(
            dataclasses.replace(each, axes=axes, calls=each.calls * tiles) if each.graph.startswith("vae") else each
            for each in components
        )


@dataclass(frozen=True, kw_only=True)
class Refined:
    """A refiner takes over at a part of the steps. What it has like the base model is there once.

    Raises:
        UsageError: it is none, or has other latents.
    """

    base: ModelCosts
    refiner: ModelCosts
    start: float = 0.8

    def __post_init__(self) -> None:
        if error := conflict(self.base.model, self.refiner.model):
            raise error

    def __call__(self, components: Components, request: Request) -> Components:
        """The refiner's own engines after the base's step."""
        base = {each.graph: each for each in components}
        calls = request.steps - round(self.start * request.steps)
        own = [
            dataclasses.replace(
                base[graph],
                name=f"refiner {graph}",
                work=work,
                calls={"step": calls, "text_encoder_2": 1}.get(graph, 0),  # the base model's VAE decodes
                plan=self.refiner.plans.get(graph),
                scratch=self.refiner.scratch.get(graph),
            )
            for graph, work in self.refiner.works.items()
            if graph in base and base[graph].work != work
        ]
        step = dataclasses.replace(base["step"], calls=request.steps - calls)
        return (*(step if each is base["step"] else each for each in components), *own)
