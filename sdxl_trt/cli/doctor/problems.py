"""What is worth mending, each with what helps. What is merely not installed is none, unless a picture needs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sdxl_trt.cli.doctor.bundles import demo_obstacles
from sdxl_trt.cli.doctor.libraries import clash
from sdxl_trt.errors import FlavourUnavailable

Problem = dict[str, str]


def problems(report: Mapping[str, Any]) -> list[Problem]:
    """In the order they are best mended, each once."""
    found = [*_gpu_problems(report), *_library_problems(report), *_file_problems(report)]
    if not report["picture"]:
        found += _missing_picture(report)
    return [each for place, each in enumerate(found) if each not in found[:place]]


def _gpu_problems(report: Mapping[str, Any]) -> Iterator[Problem]:
    from sdxl_trt.runtime.host import choose_flavour

    if report["driver"]["error"] and report["driver"]["version"]:  # there is a GPU to be had
        yield report["driver"]["error"]
    for gpu in report["gpus"]:
        if gpu["error"]:
            yield gpu["error"]
            continue
        if gpu["unknown"]:
            yield gpu["unknown"]
        try:
            choose_flavour(gpu["sm"], gpu["flavours"])
        except FlavourUnavailable as error:
            yield error.as_dict()


def _library_problems(report: Mapping[str, Any]) -> Iterator[Problem]:
    if error := clash():
        yield error.as_dict()
    for library in report["libraries"].values():
        if library["state"] == "broken":
            yield library["error"]


def _file_problems(report: Mapping[str, Any]) -> Iterator[Problem]:
    places = (*report["disk"].values(), report["keys"], *report["bundles"])
    yield from (place["error"] for place in places if place["error"])


def _missing_picture(report: Mapping[str, Any]) -> Iterator[Problem]:
    """Why none can be made, with a bundle that is there or with the demo model."""
    for bundle in report["bundles"]:
        for device, use in bundle["devices"].items():
            yield {
                "what": f"nothing in {bundle['path']} runs on {device}",
                "got": "; ".join(f"{target}: {reason}" for target, reason in use["refused"].items()),
                "fix": use["fix"],
            }
    yield from demo_obstacles(report)
