"""A plan as one HTML page that needs nothing else: no scripts, no fonts, nothing is fetched.

markup        elements, escaped; numbers with their exact values
plots         memory by policy, time by steps
sections      the parts of the page
sources       what the arithmetic rests on
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

from sdxl_trt.planning import Alternatives, Plan
from sdxl_trt.report import sections
from sdxl_trt.report.markup import Html, tag
from sdxl_trt.report.sources import sources
from sdxl_trt.svg import MARKS, palette
from sdxl_trt.version import __version__

HEAD = Html(
    '<meta charset="utf-8"/>'
    '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
    '<meta name="color-scheme" content="light dark"/>'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>"
)


def page(plan: Plan, others: Alternatives, options: Mapping[str, str]) -> str:
    """The document.

    Args:
        plan: what it is about.
        others: what to compare it with.
        options: asked for, by name, as text.
    """
    style = Html(palette(":root") + MARKS + resources.files(__name__).joinpath("style.css").read_text(encoding="utf-8"))
    title = f"Plan: {' with '.join(plan.models)} on {plan.card.name}"
    main = (
        sections.summary(plan),
        sections.memory(plan),
        sections.time(plan, others),
        sections.cards(plan, others),
        sections.engines(plan),
        sections.asked(options),
        sources(plan),
    )
    footer = tag("footer", tag("p", f"Written by sdxl-trt {__version__}.", class_="lead"))
    body = tag("body", tag("main", *main), footer)
    document = tag("html", tag("head", HEAD, tag("title", title), tag("style", style)), body, lang="en")
    return f"<!DOCTYPE html>\n{document}\n"
