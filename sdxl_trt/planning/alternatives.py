"""The same pictures otherwise: in other numbers of steps, and on other cards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from sdxl_trt.errors import OutOfMemory
from sdxl_trt.gpus import find_gpu
from sdxl_trt.planning.plan import Card, Plan

STEPS = (10, 20, 30, 40, 50)

CARDS = {
    "Cards of 4 to 32 GB": (
        "rtx3050-laptop", "rtx2060", "rtx4050-laptop", "rtx4060", "rtx3080", "rtx3060", "rtx4070",
        "rtx4060ti-16gb", "rtx4080", "rtx3090", "rtx4090", "rtx5090",
    ),
    "Data centre": ("t4", "a10", "l4", "l40s", "a100", "h100", "h200", "b200"),
}  # fmt: skip
"""Of each memory the usual ones, under their headings."""


@dataclass(frozen=True, kw_only=True)
class Alternatives:
    """Plans beside a plan."""

    steps: tuple[Plan, ...]
    """For each of `STEPS`, on the same card with the same policy."""
    cards: dict[str, tuple[tuple[Card, Plan | None], ...]]
    """For each of `CARDS` by heading, each with its fastest policy; None where nothing fits."""


def alternatives(plan: Plan, make: Callable[..., Plan]) -> Alternatives:
    """What to compare a plan with.

    Args:
        plan: the plan.
        make: what made it, `make_plan` with all that stays: the model, the refiner and the options.
    """
    steps = (dataclasses.replace(plan.request, steps=number) for number in STEPS)
    return Alternatives(
        steps=tuple(make(card=plan.card, request=each, policy=plan.chosen.policy) for each in steps),
        cards={
            heading: tuple(_on(Card.of(find_gpu(key)), plan, make) for key in keys) for heading, keys in CARDS.items()
        },
    )


def _on(card: Card, plan: Plan, make: Callable[..., Plan]) -> tuple[Card, Plan | None]:
    try:
        return card, make(card=card, request=plan.request)
    except OutOfMemory:
        return card, None
