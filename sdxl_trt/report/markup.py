"""HTML and SVG out of Python: what is not markup is escaped, and every number says exactly what it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from sdxl_trt.planning import gb


class Html(str):
    """Markup that is whole and safe."""


def tag(name: str, *children: str, **attributes: object) -> Html:
    """An element. Text among the children is escaped, and so are attributes, which are named `class_`, `aria_label`."""
    inside = joined(*children)
    given = (f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"' for key, value in attributes.items())
    return Html(f"<{name}{''.join(given)}>{inside}</{name}>")


def joined(*parts: str) -> Html:
    """Several, one after the other."""
    return Html("".join(part if isinstance(part, Html) else escape(part, quote=False) for part in parts))


def size(value: int) -> Html:
    """Bytes, shown in GB."""
    return tag("data", gb(value), value=value)


def seconds(value: float) -> Html:
    """As `rounded`."""
    return tag("data", f"{rounded(value)} s", value=value)


def rounded(value: float) -> str:
    """To three digits, or without a fraction."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def count(value: float, text: str) -> Html:
    """Any other number, as it is shown."""
    return tag("data", text, value=value)


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """The first cell of a row is its heading; where it is too wide for the page it can be scrolled."""
    columns = tag("tr", *(tag("th", name, scope="col") for name in header))
    lines = (tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows)
    inside = tag("table", tag("caption", caption), tag("thead", columns), tag("tbody", *lines))
    return tag("div", inside, class_="scroll", role="region", tabindex=0, aria_label=caption)


def definitions(pairs: Iterable[tuple[str, str]]) -> Html:
    """Names and what is said of them."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", text)) for name, text in pairs))


def section(title: str, *children: str) -> Html:
    """A part of the page under its heading."""
    return tag("section", tag("h2", title), *children)
