"""The page of a plan: whole, alone, escaped, with the plan's own numbers. That it looks well is not shown here."""

from __future__ import annotations

import dataclasses
import functools
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from sdxl_trt.cli.plan import as_dict
from sdxl_trt.gpus import find_gpu
from sdxl_trt.planning import Card, ModelCosts, Plan, Request, alternatives, make_plan, published
from sdxl_trt.planning.alternatives import CARDS, STEPS
from sdxl_trt.report import page
from sdxl_trt.svg import palette

BASE = published("stabilityai/stable-diffusion-xl-base-1.0")
CARD = Card.of(find_gpu("rtx3060"))
REQUEST = Request(size=(1024, 1024), steps=30, batch=2)
OPTIONS = {"model": "base", "--steps": "30 (default)"}
VOID = {"meta"}
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "footer", "section", "h1", "h2", "p", "ul"),
    *("li", "dl", "div", "dt", "dd", "figure", "figcaption", "table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("data", "svg", "text", "rect", "line", "circle"),
}


class Reader(HTMLParser):
    """Elements with their attributes and text, as long as every one is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements = list[tuple[str, dict[str, str | None], list[str]]]()
        self.tables = list[list[list[str | float]]]()
        """Rows of cells: their text, or the value of the number that they hold."""
        self._open = list[int]()
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
        elif tag == "data" and any(self.elements[place][0] in ("th", "td") for place in self._open):
            self.tables[-1][-1][-1] = float(dict(attrs)["value"])

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            element, _, text = self.elements[self._open[-1]]
            text.append(data)
            if element in ("th", "td") and not isinstance(self.tables[-1][-1][-1], float):
                self.tables[-1][-1][-1] = data

    def all(self, tag: str, class_: str | None = None) -> list[tuple[dict[str, str | None], str]]:
        found = [(attributes, "".join(text)) for name, attributes, text in self.elements if name == tag]
        return [each for each in found if class_ is None or each[0].get("class") == class_]

    def table(self, first: str) -> dict[str | float, list[str | float]]:
        """Rows by their heading, of the table whose first column has that name."""
        rows = next(rows for rows in self.tables if rows[0][0] == first)
        return {row[0]: row[1:] for row in rows[1:]}


def planned(costs: ModelCosts = BASE, card: Card = CARD, request: Request = REQUEST) -> tuple[Plan, str]:
    make = functools.partial(make_plan, costs)
    plan = make(card=card, request=request)
    return plan, page(plan, alternatives(plan, make), OPTIONS)


def percent(text: str | None) -> float:
    assert text
    return float(text.removesuffix("%"))


def test_it_is_one_page_that_fetches_nothing() -> None:
    _, text = planned()
    found = Reader(text)
    assert text.startswith("<!DOCTYPE html>")
    assert {name for name, _, _ in found.elements} == ALLOWED
    assert not re.search(r"https?:|//|url\(|@import|javascript", text)
    attributes = {name for _, given, _ in found.elements for name in given}
    assert not attributes & {"src", "href", "xlink:href", "style", "srcset", "action"}
    assert not [name for name in attributes if name.startswith("on")]
    policies = [given["content"] for given, _ in found.all("meta") if "http-equiv" in given]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_it_can_be_read_without_seeing_it() -> None:
    found = Reader(planned()[1])
    assert found.all("html")[0][0]["lang"] == "en"
    assert found.all("title")[0][1] == "Plan: stable-diffusion-xl-base-1.0 on NVIDIA GeForce RTX 3060 12GB"
    assert (len(found.all("h1")), len(found.all("h2"))) == (1, 6)
    assert all(given["role"] == "img" and given["aria-label"] for given, _ in found.all("svg"))
    assert {given.get("scope") for given, _ in found.all("th")} == {"col", "row"}
    assert len(found.all("caption")) == len(found.all("table")) == 5
    assert all(given["tabindex"] == "0" and given["aria-label"] for given, _ in found.all("div", "scroll"))


def test_everything_is_marked_as_estimated() -> None:
    text = planned()[1]
    assert "Everything on this page is estimated" in text
    for title in ("Memory", "Time by steps", "What to use on which card"):
        assert f"{title} (estimated)" in text
    assert "half of it with fp32 accumulation" in text, "how the card's rates come about"
    assert "OneDiff" in text, "whose efficiencies they are"


def test_numbers_are_those_of_the_json() -> None:
    plan, text = planned()
    found, told = Reader(text), as_dict(plan)
    policies = found.table("policy")
    assert list(policies) == [each["policy"] for each in told["policies"]]
    for each in told["policies"]:
        verdict, *sizes = policies[each["policy"]]
        assert sizes == [each[name] for name in ("peak", "least", "loaded", "streamed")]
        assert str(verdict).startswith("fits") == each["fits"]
        assert str(verdict).endswith("this one") == (each["policy"] == told["policy"])
    engines = found.table("engine")
    for each in told["components"]:
        names = ("parameters", "weights", "activations", "calls", "operations")
        assert engines[each["name"]] == [*(each[name] for name in names), each["seconds"]["floor"]]
    values = [float(str(given["value"])) for given, _ in found.all("data")]
    summary = (told["seconds"]["low"], told["seconds"]["high"], told["peak"])
    assert values[:3] == list(summary)
    assert values[3:6] == [told["building"][name] for name in ("disk", "seconds", "memory")]
    assert found.table("steps")[30] == [told["seconds"][name] for name in ("floor", "low", "high")]


def test_every_step_count_and_card_has_its_row() -> None:
    plan, text = planned()
    found = Reader(text)
    assert list(found.table("steps")) == list(STEPS)
    for steps, row in found.table("steps").items():
        request = dataclasses.replace(REQUEST, steps=int(steps))
        total = make_plan(BASE, CARD, request, policy=plan.chosen.policy).total
        assert total
        assert row == [total.floor, total.low, total.high]
    rows = [row for table in found.tables if table[0][0] == "card" for row in table[1:]]
    assert len(rows) == sum(map(len, CARDS.values()))
    for row, key in zip(rows, (key for keys in CARDS.values() for key in keys), strict=True):
        other = make_plan(BASE, Card.of(find_gpu(key)), REQUEST)
        assert other.total
        assert row[1:] == [
            other.chosen.policy, other.total.high, other.card.memory, other.chosen.peak, other.card.flavour
        ]  # fmt: skip
    assert "RTX 2060 6GB: TensorRT for RTX builds no fp32" in text


def test_cards_that_are_too_small_are_told_what_it_takes() -> None:
    _, text = planned(request=Request(size=(2048, 2048), steps=30, batch=1))
    small = Reader(text).table("card")["RTX 4060"]
    assert str(small[1]) == "–"
    assert 8e9 < float(small[0]) < 12e9


def test_bars_are_as_long_as_the_memory() -> None:
    plan, text = planned(card=Card.of(find_gpu("rtx2060")))
    found = Reader(text)
    bars = [given for given, _ in found.all("rect") if given["class"] != "reserve"]
    assert [bar["class"] for bar in bars] == ["peak" if each.fits(plan.available) else "over" for each in plan.policies]
    unit = percent(found.all("line", "card")[0][0]["x1"]) / plan.card.memory
    for bar, each in zip(bars, plan.policies, strict=True):
        assert percent(bar["width"]) == pytest.approx(each.peak * unit, abs=0.02)
        assert percent(bar["x"]) + percent(bar["width"]) <= 100
    ranges = [given for given, _ in found.all("line", "range")]
    heights = [float(str(given["y2"])) - float(str(given["y1"])) for given in ranges]
    assert len(heights) == len(STEPS)
    assert 0 < heights[0] < heights[-1]
    assert min(float(str(given["y1"])) for given in ranges) > 32, "room for its label's two lines"


def test_a_card_of_unknown_rates_has_no_times() -> None:
    _, text = planned(card=Card.by_hand(8, 89))
    found = Reader(text)
    assert "the card's rates are not" in text
    assert (len(found.all("svg")), found.all("circle")) == (1, [])
    assert found.table("engine")["step"][-1] == "not known"


def test_names_from_outside_are_text() -> None:
    hostile = "</title></style><script>alert('1')</script>\"&"
    costs = dataclasses.replace(BASE, model=dataclasses.replace(BASE.model, name=hostile))
    plan = make_plan(costs, dataclasses.replace(CARD, name=hostile), REQUEST)
    text = page(plan, alternatives(plan, functools.partial(make_plan, costs)), {hostile: hostile})
    found = Reader(text)
    assert "<script" not in text
    assert {name for name, _, _ in found.elements} == ALLOWED
    assert found.all("h1")[0][1] == f"{hostile} on {hostile}"
    assert hostile in [said for _, said in found.all("dd")]


def luminance(colour: str) -> float:
    """Relative, of an sRGB colour: WCAG 2.2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["ink", "muted", "line", "warning"])
def test_text_stands_out(scheme: int, name: str) -> None:
    colours = {key: re.findall(rf"--{key}: (#\w+)", palette(":root"))[scheme] for key in ("surface", name)}
    low, high = sorted(map(luminance, colours.values()))
    contrast = (high + 0.05) / (low + 0.05)
    print(f"{name} in scheme {scheme}: contrast {contrast:.1f}, required 4.5 (WCAG 2.2, AA)")
    assert contrast >= 4.5
