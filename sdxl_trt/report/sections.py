"""The parts of the page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from sdxl_trt.planning import RESERVE, Alternatives, Card, Component, Memory, Plan
from sdxl_trt.planning.policies import least_memory
from sdxl_trt.planning.roofline import Time
from sdxl_trt.report.markup import Html, count, definitions, joined, rounded, seconds, section, size, table, tag
from sdxl_trt.report.plots import memory_bars, time_bars, verdict
from sdxl_trt.spec.profile import format_size

UNKNOWN = "not known"


def summary(plan: Plan) -> Html:
    """The heading, and what matters most."""
    request, building = plan.request, plan.building
    pictures = f"{request.batch} × {format_size(request.size)}, {request.steps} step{'s' * (request.steps > 1)}"
    return tag(
        "header",
        tag("h1", f"{' with '.join(plan.models)} on {plan.card.name}"),
        tag("p", pictures, class_="lead"),
        tag("p", "Everything on this page is estimated by arithmetic; nothing was built or run.", class_="estimated"),
        *(tag("p", sentence, class_="limit") for sentence in plan.card.limits),
        definitions(
            [
                ("Time for all pictures", _range(plan.total) if plan.total else UNKNOWN),
                ("Memory policy", plan.chosen.policy),
                ("Peak of the engines", size(plan.chosen.peak)),
                ("Disk for the bundle", size(building.disk)),
                ("Export and build", UNKNOWN if building.seconds is None else seconds(building.seconds)),
                ("Memory to build", UNKNOWN if building.memory is None else size(building.memory)),
            ]
        ),
    )


def asked(options: Mapping[str, str]) -> Html:
    """Every option, whether it was given or not."""
    return section("What was asked for", definitions(options.items()))


def memory(plan: Plan) -> Html:
    """Policies against the card."""
    caption = tag(
        "figcaption",
        f"Each bar begins with what is left to the driver, CUDA's context and a desktop ({RESERVE / 1e9:.1f} GB, "
        "an assumption), then come the engines.",
    )
    rows = [_policy(each, plan) for each in plan.policies]
    header = ("policy", "verdict", "peak of engines", "works from", "loaded once", "streamed in the loop")
    told = f"Of {plan.card.name}'s memory, engines may have "
    return section(
        "Memory (estimated)",
        tag("figure", memory_bars(plan), caption),
        tag("p", told, size(plan.available), " of ", size(plan.card.memory), "."),
        table("Policies, the fastest first", header, rows),
    )


def _policy(each: Memory, plan: Plan) -> tuple[str, ...]:
    return each.policy, verdict(each, plan), *map(size, (each.peak, each.least, each.loaded, each.streamed))


def time(plan: Plan, others: Alternatives) -> Html:
    """By steps."""
    title, request = "Time by steps (estimated)", plan.request
    if not plan.total:
        return section(title, tag("p", "Not known, for the card's rates are not: name it with --gpu."))
    rows = [
        (count(each.request.steps, str(each.request.steps)), *map(seconds, (total.floor, total.low, total.high)))
        for each in others.steps
        if (total := each.total)
    ]
    told = "Bars reach from the shortest to the longest time expected; dots are what the hardware's peaks allow."
    caption = f"{request.batch} × {format_size(request.size)}, policy {plan.chosen.policy}"
    return section(
        title,
        tag("figure", time_bars(others.steps), tag("figcaption", told)),
        table(caption, ("steps", "at least", "shortest", "longest"), rows),
    )


def cards(plan: Plan, others: Alternatives) -> Html:
    """What to use on which card."""
    header = ("card", "policy", "time", "memory", "peak of engines", "engines")
    parts = list[Html]()
    for heading, found in others.cards.items():
        parts.append(table(heading, header, (_card(card, best, plan) for card, best in found)))
        parts += _limits(card for card, _ in found)
    told = "The same pictures on other cards, each with the fastest policy that fits all of its memory."
    return section("What to use on which card (estimated)", tag("p", told), *parts)


def _card(card: Card, found: Plan | None, asked_for: Plan) -> tuple[str, ...]:
    if found is None:
        least = size(least_memory(asked_for.components) + RESERVE)
        return _short(card), joined("none: needs ", least), "–", size(card.memory), "–", card.flavour
    spent = _range(found.total) if found.total else UNKNOWN
    return _short(card), found.chosen.policy, spent, size(card.memory), size(found.chosen.peak), card.flavour


def _short(card: Card) -> str:
    return card.name.removeprefix("NVIDIA ").removeprefix("GeForce ")


def _limits(found: Iterable[Card]) -> Iterator[Html]:
    """What cannot be done with some of the cards, each sentence once."""
    limited = defaultdict[str, list[str]](list)
    for card in found:
        for sentence in card.limits:
            limited[sentence].append(_short(card))
    for sentence, names in limited.items():
        yield tag("p", f"{', '.join(names)}: {sentence}", class_="limit")


def engines(plan: Plan) -> Html:
    """Where memory and time go."""
    header = ("engine", "parameters", "weights", "activations", "calls", "TFLOP", "at least")
    spent = plan.times or (None,) * len(plan.components)
    rows = [_engine(each, used) for each, used in zip(plan.components, spent, strict=True)]
    return section("Engines (counted in their graphs)", table("Of all calls for the request", header, rows))


def _engine(each: Component, spent: Time | None) -> tuple[str, ...]:
    operations = each.calls * each.work.operations(each.axes)
    return (
        each.name,
        count(each.work.parameters, f"{each.work.parameters / 1e6:,.1f} M"),
        size(each.weights),
        size(each.activations),
        count(each.calls, str(each.calls)),
        count(operations, f"{operations / 1e12:,.3f}"),
        seconds(spent.floor) if spent else UNKNOWN,
    )


def _range(spent: Time) -> Html:
    return joined(count(spent.low, rounded(spent.low)), "–", seconds(spent.high))
