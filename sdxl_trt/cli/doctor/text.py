"""What `doctor` found, as a page of text."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Row = Mapping[str, Any]


def page(report: Row) -> str:
    """All of it, problems last."""
    return "\n".join(
        [
            f"sdxl-trt {report['sdxl-trt']}, Python {report['python']}, {report['processor']}",
            _driver(report["driver"]),
            *_titled("GPUs", (_gpu(gpu) for gpu in report["gpus"])),
            _memory(report["memory"]),
            *_titled("disk", (_folder(name, folder) for name, folder in report["disk"].items())),
            *_titled("engine libraries", (_library(name, row) for name, row in report["libraries"].items())),
            "export: " + (_flat(report["export"]["error"]) if report["export"]["error"] else "models can be exported"),
            *_keys(report["keys"]),
            *_titled("bundles", (line for bundle in report["bundles"] for line in _bundle(bundle))),
            *_titled("problems", (line for problem in report["problems"] for line in _problem(problem))),
            _picture(report["picture"]),
        ]
    )


def _titled(title: str, lines: Iterable[str]) -> list[str]:
    inside = [f"  {line}" for line in lines]
    return [f"{title}:", *inside] if inside else [f"{title}: none"]


def _driver(driver: Row) -> str:
    version = f"NVIDIA driver {driver['version']}, " if driver["version"] else ""
    return f"driver: {version}" + (f"CUDA {driver['cuda']}" if driver["cuda"] else _flat(driver["error"]))


def _gpu(gpu: Row) -> str:
    if gpu["error"]:
        return f"{gpu['device']}  {_flat(gpu['error'])}"
    known = f"--gpu {gpu['key']}" if gpu["key"] else "not in the catalogue"
    runs = ", ".join(f"{name} {version}" for name, version in gpu["flavours"].items()) or "no engines"
    limits = "".join(f"\n    ! {sentence}" for sentence in gpu["limits"])
    room = f"{gpu['free'] / 1e9:.1f} of {gpu['total'] / 1e9:.1f} GB free"
    return f"{gpu['device']}  {gpu['name']}, SM {gpu['sm']}, {known}: {room}, runs {runs}{limits}"


def _memory(memory: Row) -> str:
    limit = f"; this process may take {memory['limit'] / 1e9:.1f} GB" if memory["limit"] else ""
    return f"memory: {memory['available'] / 1e9:.1f} of {memory['total'] / 1e9:.1f} GB available{limit}"


def _folder(name: str, folder: Row) -> str:
    return f"{name:8} {folder['free'] / 1e9:.1f} GB free  {folder['path']}"


def _library(name: str, row: Row) -> str:
    """Version or state, devices, and whether engines can be built."""
    runs = f"runs on {', '.join(row['runs_on'])}" if row["runs_on"] else "runs on nothing here"
    builds = "does not build: " + _flat(row["build_error"]) if row["build_error"] else "builds"
    return f"{name:17} {row['version'] or row['state']:12} {runs}; {builds}"


def _keys(keys: Row) -> list[str]:
    if keys["error"]:
        return ["trust: " + _flat(keys["error"])]
    if not keys["trusted"]:
        return ["trust: no public key is configured, bundles are taken from anybody"]
    return _titled("trust", (f"{key['fingerprint']}  {key['source']}" for key in keys["trusted"]))


def _bundle(bundle: Row) -> Iterator[str]:
    signed = f"signed with {bundle['signed_with']}" if bundle["signed_with"] else "unsigned"
    yield f"{bundle['path']}  " + (_flat(bundle["error"]) if bundle["error"] else f"{bundle['model']}, {signed}")
    for device, use in bundle["devices"].items():
        proven = "" if use["accepted"] else ", built: never run yet"
        proven += f"; memory: {use['memory']}" if use["memory"] else ""
        yield f"  {device}: " + (
            f"{use['target']} runs{proven}" if use["target"] else f"nothing runs. fix: {use['fix']}"
        )
        yield from (f"    {target}: {reason}" for target, reason in use["refused"].items())


def _problem(problem: Row) -> Iterator[str]:
    yield f"* {problem['what']}"
    yield from (f"    {part}: {problem[part]}" for part in ("got", "expected", "fix") if problem.get(part))


def _picture(picture: Row | None) -> str:
    if not picture:
        return "picture: none can be made here, see the problems"
    command = shlex.join(
        ["sdxl-trt", "run", "a red circle", "--bundle", picture["bundle"], "--device", picture["device"]]
    )
    return f"picture: {command}" + ("" if picture["target"] else ", which builds the demo model first")


def _flat(error: Row) -> str:
    """An error on one line."""
    parts = (error["what"], *(f"{part}: {error[part]}" for part in ("got", "fix") if error[part]))
    return "; ".join(parts)
