"""Small multiples are an SVG that can be read, with a line for each thing and all of its values."""

from __future__ import annotations

from xml.etree import ElementTree

from benchmarks.chart import COLUMNS, Line, chart

SVG = "{http://www.w3.org/2000/svg}"


def test_every_value_is_drawn_inside() -> None:
    lines = [Line(name=f"<{number}>", values=(0.0, 40.0, 100.0)) for number in range(COLUMNS + 1)]
    root = ElementTree.fromstring(chart("a & b", "steps", (1, 2, 4), lines))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    names = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "name"]
    assert names == [line.name for line in lines]
    for group in root.iter(f"{SVG}g"):
        x, y = map(float, group.attrib["transform"][len("translate(") : -1].split())
        dots = [(x + float(dot.attrib["cx"]), y + float(dot.attrib["cy"])) for dot in group.iter(f"{SVG}circle")]
        assert len(dots) == 3
        assert all(0 < across < width and 0 < down < height for across, down in dots)
        assert dots[0][1] > dots[1][1] > dots[2][1]  # larger is higher
