"""What becomes of a text that says it is a manifest: all that a host does with one is done, short of its files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from sdxl_trt.bundle import MANIFEST_NAME, Host, Manifest, choose_target, not_pulled, parse_manifest
from sdxl_trt.cli.ship.explain import describe, page
from sdxl_trt.errors import NoTargetForHost, NotTrusted, SdxlTrtError
from sdxl_trt.runtime.loading import load
from sdxl_trt.trust import Freshness

HOSTS = {
    "cpu": Host(processor="x86_64", flavours={"onnxruntime": "1.31.1"}, sm=None),
    "cuda:0": Host(processor="x86_64", flavours={"tensorrt-rtx": "1.31.1", "onnxruntime-cuda": "1.31.1"}, sm=86),
}

_REASONS = (
    (r"of an unknown (schema|spec) version", "a version not known"),
    (r"not JSON", "no JSON"),
    (r"stands twice", "a key twice"),
    (r"is not a JSON number|not finite", "a number that is none"),
    (r"nested deeper", "nested too deeply"),
    (r"lone surrogate", "text that is no Unicode"),
    (r"unknown field", "a field not known"),
    (r"is missing", "a field missing"),
    (r"SHA-256", "a hash that is none, or is two files'"),
    (r"no file size|chunk", "sizes or chunks that cannot be"),
    (r"target's name|same name", "a target's name"),
    (r" is not (int|str|float|bool|list|dict|NoneType)\b|items where", "a value of another type"),
)

OTHER = "a value out of its bounds"


def fate(text: bytes, folder: Path) -> str:
    """'accepted', or why it was refused. Whatever else is raised is a fault.

    Args:
        text: of a bundle.json.
        folder: a place for it, without blobs.
    """
    try:
        manifest = parse_manifest(text, folder / MANIFEST_NAME)
    except SdxlTrtError as error:
        told = f"{error}"
        return next((name for pattern, name in _REASONS if re.search(pattern, told)), OTHER)
    _use(manifest, folder)
    _load(text, folder)
    return "accepted"


def _use(manifest: Manifest, folder: Path) -> None:
    """Choose, explain, date, write and read again."""
    for host in HOSTS.values():
        with contextlib.suppress(NoTargetForHost):
            choose_target(manifest, host, folder)
    absent = not_pulled(manifest, folder)
    explained: dict[str, Any] = {
        "bundle": str(folder),
        "model": manifest.model.name,
        "created": manifest.created,
        "signed_with": None,
        "untrusted": None,
        "targets": [describe(target, HOSTS, absent.get(target.name)) for target in manifest.targets],
        "devices": {},
    }
    "\n".join(page(explained)).encode()
    json.dumps(explained, ensure_ascii=False).encode()
    with contextlib.suppress(NotTrusted):
        Freshness(folder).check("registry.example/model", manifest.created)
    again = json.dumps(dataclasses.asdict(manifest), ensure_ascii=False).encode()
    if parse_manifest(again, folder) != manifest:
        raise AssertionError("it is another manifest after it was written and read")


def _load(text: bytes, folder: Path) -> None:
    """As the runtime opens it on the processor; it gets as far as the files, which are not there."""
    (folder / MANIFEST_NAME).write_bytes(text)
    try:
        load(folder)
    except SdxlTrtError:
        return
    raise AssertionError("a bundle without files was opened")
