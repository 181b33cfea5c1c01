"""A plan: what pictures of a model would take on a card. All of it is estimated; nothing is built or run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdxl_trt.errors import UsageError
from sdxl_trt.gpus import ARCHITECTURES, RTX_SMS, Gpu
from sdxl_trt.planning.building import Building, building
from sdxl_trt.planning.components import Components, Option, Refined, Request, components
from sdxl_trt.planning.models import ModelCosts
from sdxl_trt.planning.policies import RESERVE, Memory, choose, policies
from sdxl_trt.planning.roofline import Efficiency, Time, efficiency, loading, preparing, time, total
from sdxl_trt.spec.profile import check_multiple


@dataclass(frozen=True, kw_only=True)
class Card:
    """A GPU, or what somebody says of one."""

    name: str
    sm: int
    memory: int
    """Bytes."""
    gpu: Gpu | None
    """Its rates, where it is in the catalogue."""

    @classmethod
    def of(cls, gpu: Gpu, memory_gb: float | None = None) -> Card:
        """A GPU of the catalogue, with its own memory or what is given of it."""
        return cls(name=gpu.name, sm=gpu.sm, memory=round((memory_gb or gpu.memory_gb) * 1e9), gpu=gpu)

    @classmethod
    def by_hand(cls, memory_gb: float, sm: int) -> Card:
        """A card that the catalogue lacks.

        Raises:
            UsageError: no compute capability that engines can be built for.
        """
        if sm not in ARCHITECTURES:
            raise UsageError(
                "unknown compute capability", got=str(sm), expected=", ".join(map(str, ARCHITECTURES)), fix="--sm 86"
            )
        return cls(name=f"{memory_gb:g} GB, SM {sm}", sm=sm, memory=round(memory_gb * 1e9), gpu=None)

    @property
    def flavour(self) -> str:
        """The flavour that its engines would be built with."""
        if self.gpu:
            return self.gpu.default_flavour
        return "tensorrt-rtx" if self.sm in RTX_SMS else "tensorrt"

    @property
    def limits(self) -> tuple[str, ...]:
        """What cannot be done with the GPU, in sentences."""
        return self.gpu.limits if self.gpu else ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `make_plan` found."""

    models: tuple[str, ...]
    """The model's name, and the refiner's."""
    card: Card
    request: Request
    components: Components
    available: int
    """Bytes for engines: the card's memory less `RESERVE`."""
    policies: tuple[Memory, ...]
    chosen: Memory
    building: Building
    times: tuple[Time, ...] | None
    """By component; none where the card's rates are not known."""
    loading: Time | None
    """Of the weights that the policy brings to the card for these pictures; in the total."""
    preparing: Time | None
    """Of engines that come again: run once, and recorded; in the total."""
    total: Time | None
    efficiency: Efficiency | None


def make_plan(
    costs: ModelCosts,
    card: Card,
    request: Request,
    *,
    refiner: ModelCosts | None = None,
    options: Sequence[Option] = (),
    policy: str | None = None,
) -> Plan:
    """Estimate memory, disk, build and time.

    Args:
        costs: the model.
        card: where it is to run.
        request: pictures at once, their size and steps.
        refiner: goes on where the model's steps end.
        options: change what runs, in their order, after the refiner.
        policy: one of `POLICIES`; by default the fastest that fits.

    Raises:
        UnsupportedSize: the size is not a multiple of 8.
        UsageError: the refiner is none, or has other latents.
        OutOfMemory: nothing fits the card's memory, or not the policy that is asked for.
    """
    check_multiple(request.size)
    models = [costs, *([refiner] if refiner else [])]
    refined = [Refined(base=costs, refiner=refiner)] if refiner else []
    found = components(costs, request, [*refined, *options])
    available = card.memory - RESERVE
    chosen = choose(found, available, policy)
    gpu = card.gpu
    return Plan(
        models=tuple(each.model.name for each in models),
        card=card,
        request=request,
        components=found,
        available=available,
        policies=policies(found, available),
        chosen=chosen,
        building=building(found, sum(each.files for each in models), card.flavour),
        times=tuple(time(gpu, each) for each in found) if gpu else None,
        loading=loading(gpu, found, chosen) if gpu else None,
        preparing=preparing(gpu, found, chosen) if gpu else None,
        total=total(gpu, found, chosen) if gpu else None,
        efficiency=efficiency(gpu) if gpu else None,
    )
