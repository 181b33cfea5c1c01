"""What all plots have in common: a frame, a title, and colours for light and dark pages."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

MARKS: Final = """
  .grid { stroke: var(--grid) }
  .line { fill: none; stroke: var(--line); stroke-width: 2; stroke-linejoin: round }
  .faint { fill: none; stroke: var(--muted); stroke-width: 1.5; stroke-dasharray: 5 4 }
  .dot { fill: var(--line); stroke: var(--surface); stroke-width: 1.5 }
"""
"""What plots draw with."""


def palette(selector: str) -> str:
    """CSS that gives what a selector finds the colours of light and of dark pages, as variables.

    Text in --ink, --muted, --line and --warning has a contrast of 4.5 or more on --surface.
    """
    return f"""
  {selector} {{
    --surface: #ffffff; --ink: #1f2328; --muted: #59636e; --grid: #d8dee4; --line: #0969da; --warning: #bc4c00
  }}
  @media (prefers-color-scheme: dark) {{
    {selector} {{
      --surface: #0d1117; --ink: #e6edf3; --muted: #9198a1; --grid: #30363d; --line: #58a6ff; --warning: #f0883e
    }}
  }}
"""


STYLE: Final = (
    palette("svg")
    + MARKS
    + """
  text { font: 11px system-ui, sans-serif; fill: var(--muted) }
  .title { font-size: 14px; font-weight: 600; fill: var(--ink) }
  .name { font-weight: 600; fill: var(--ink) }
  .value { font-size: 10px; fill: var(--ink) }
"""
)


def picture(title: str, width: int, height: int, left: int, content: Iterable[str]) -> str:
    """The SVG.

    Args:
        title: above all.
        width, height: in pixels.
        left: where the title begins.
        content: elements, in the order they are drawn.
    """
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
            f"<title>{escape(title)}</title><style>{STYLE}</style>",
            f'<rect width="{width}" height="{height}" rx="6" style="fill: var(--surface)"/>',
            f'<text class="title" x="{left}" y="24">{escape(title)}</text>',
            *content,
            "</svg>\n",
        ]
    )
