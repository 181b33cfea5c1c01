"""The page's plots. They are as wide as the page, places across are parts of it: text keeps its size on any screen."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sdxl_trt.planning import RESERVE, Memory, Plan, gb
from sdxl_trt.planning.roofline import Time
from sdxl_trt.report.markup import Html, rounded, tag

ROW, BAR = 52, 18
"""Pixels of a policy's row, and of the bar in it."""
HEIGHT, TOP, BOTTOM = 220, 24, 26
"""Pixels of the plot of times, and of what is above and below its axes."""
LEFT, RIGHT = 14, 88
"""Per cent of the width at which the first and the last number of steps stand."""


def memory_bars(plan: Plan) -> Html:
    """A bar for each policy, and a line where the card's memory ends."""
    whole = 1.04 * max(plan.card.memory, *(each.peak + RESERVE for each in plan.policies))
    card = _percent(plan.card.memory / whole)
    rows = [(each, TOP + ROW * place) for place, each in enumerate(plan.policies)]
    height = TOP + ROW * len(rows)
    return _picture(
        f"Memory that each policy takes at its peak, of {gb(plan.card.memory)}; the same numbers are in the table",
        height,
        *(bar for memory, y in rows for bar in _bar(memory, y, whole, fits=memory.fits(plan.available))),
        tag("line", class_="card", x1=card, x2=card, y1=TOP - 6, y2=height),
        tag("text", f"card: {gb(plan.card.memory)}", x=card, y=TOP - 10, text_anchor="end"),
        *(_bar_name(memory, y, plan) for memory, y in rows),
    )


def _bar(memory: Memory, y: int, whole: float, *, fits: bool) -> Iterator[Html]:
    reserve, peak = _percent(RESERVE / whole), _percent(memory.peak / whole)
    yield tag("rect", class_="reserve", x=0, y=y + 22, width=reserve, height=BAR)
    yield tag("rect", class_="peak" if fits else "over", x=reserve, y=y + 22, width=peak, height=BAR)


def _bar_name(memory: Memory, y: int, plan: Plan) -> Html:
    chosen = memory.policy == plan.chosen.policy
    said = f"{memory.policy}: {gb(memory.peak)}, {verdict(memory, plan)}"
    return tag("text", said, class_="chosen" if chosen else "name", x=0, y=y + 14)


def verdict(memory: Memory, plan: Plan) -> str:
    """Whether a policy fits, and is the plan's."""
    if memory.policy == plan.chosen.policy:
        return "fits, this one"
    return "fits" if memory.fits(plan.available) else "does not fit"


def time_bars(plans: tuple[Plan, ...]) -> Html:
    """From the shortest to the longest time for each number of steps, and a mark for the least that is possible."""
    times = {plan.request.steps: plan.total for plan in plans if plan.total}
    ticks = _ticks(max(time.high for time in times.values()))
    scale = HEIGHT / ticks[-1]
    grid = [line for tick in ticks for line in _gridline(tick, TOP + HEIGHT - tick * scale)]
    bars = [bar for steps, time in times.items() for bar in _range(time, _place(steps, [*times]), scale, str(steps))]
    label = f"Time for {min(times)} to {max(times)} steps; the same numbers are in the table"
    return _picture(label, TOP + HEIGHT + BOTTOM, *grid, *bars)


def _range(time: Time, x: str, scale: float, name: str) -> Iterator[Html]:
    high, low, floor = (f"{TOP + HEIGHT - value * scale:.1f}" for value in (time.high, time.low, time.floor))
    yield tag("line", class_="range", x1=x, x2=x, y1=high, y2=low)
    yield tag("circle", class_="dot", cx=x, cy=floor, r=4)
    for said, dy in ((f"{rounded(time.low)}–", -20), (f"{rounded(time.high)} s", -6)):  # as narrow as on a telephone
        yield tag("text", said, class_="value", x=x, y=high, dy=dy, text_anchor="middle")
    yield tag("text", name, x=x, y=TOP + HEIGHT + 18, text_anchor="middle")


def _gridline(tick: float, y: float) -> Iterator[Html]:
    yield tag("line", class_="grid", x1=0, x2="100%", y1=f"{y:.1f}", y2=f"{y:.1f}")
    yield tag("text", f"{tick:g} s", x=0, y=f"{y - 4:.1f}")


def _ticks(most: float) -> list[float]:
    """Round numbers from 0 to beyond the most, with room for a label above it."""
    rough = most / 3
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [step * number for number in range(math.ceil(1.08 * most / step) + 1)]


def _place(value: int, values: list[int]) -> str:
    """Across, between `LEFT` and `RIGHT`."""
    part = (value - values[0]) / (values[-1] - values[0])
    return _percent((LEFT + (RIGHT - LEFT) * part) / 100)


def _picture(label: str, height: int, *content: Html) -> Html:
    return tag("svg", *content, width="100%", height=height, role="img", aria_label=label)


def _percent(part: float) -> str:
    return f"{100 * part:.2f}%"
