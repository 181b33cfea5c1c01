"""Where a bundle is shipped to or from, as it is written on the command line.

oci://host[:port]/name[:tag|@digest]    a registry
oci-layout:PATH[:tag]                   an OCI image layout: a folder, or a URL that fsspec knows
PATH.tar                                an OCI image layout in an archive
s3://…, memory://…, file://…            an OCI image layout at a URL that fsspec knows, [:tag] behind it
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from sdxl_trt.errors import UsageError

LATEST = "latest"
"""The tag that is meant where none is written."""

REGISTRY = "oci://"
_LAYOUT = "oci-layout:"
_ARCHIVE = ".tar"

# The grammar of the OCI distribution specification 1.1, and of host names.
_NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAG = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}"
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]{0,252}[a-zA-Z0-9])?|\[[0-9a-fA-F:]{2,39}\])(?::(?P<port>[0-9]{1,5}))?"
_REGISTRY = re.compile(
    rf"oci://(?P<host>{_HOST})/(?P<repository>{_NAME}(?:/{_NAME})*)(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?"
)
_TAGGED = re.compile(rf"(?P<place>.+):(?P<tag>{_TAG})", re.DOTALL)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://.+", re.DOTALL)
_MOST_NAME = 255


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One bundle at one place."""

    kind: str
    """registry, layout or archive."""
    place: str
    """host[:port]/repository; a folder's path or URL; an archive's path."""
    tag: str = LATEST
    digest: str = ""
    """Of the image index, in a registry alone: 'sha256:…', then the tag does not count."""

    def __str__(self) -> str:
        last = f"@{self.digest}" if self.digest else f":{self.tag}"
        if self.kind == "registry":
            return f"{REGISTRY}{self.place}{last}"
        return self.place if self.kind == "archive" else f"{_LAYOUT}{self.place}{last}"

    @property
    def host(self) -> str:
        """Of a registry: host[:port]."""
        return self.place.partition("/")[0]

    @property
    def repository(self) -> str:
        """Of a registry: the name behind the host."""
        return self.place.partition("/")[2]

    @property
    def origin(self) -> str:
        """Where all tags of it are, the same text from every folder."""
        return self.place if self.kind == "registry" or "://" in self.place else str(Path(self.place).absolute())

    @property
    def folder_name(self) -> str:
        """The name of a folder for what is pulled: readable, and another one for every other reference."""
        name = Path(self.place.rstrip("/")).name.removesuffix(_ARCHIVE)
        readable = re.sub(r"[^a-zA-Z0-9._-]", "-", f"{name}-{self.digest[7:19] or self.tag}").lstrip(".-")
        digest = hashlib.sha256(f"{self.origin}\n{self.tag}\n{self.digest}".encode()).hexdigest()[:8]
        return f"{readable[:80]}-{digest}"


def is_reference(text: str) -> bool:
    """Whether a text is meant as a reference rather than as a bundle's folder."""
    return text.startswith(_LAYOUT) or text.endswith(_ARCHIVE) or _SCHEME.fullmatch(text) is not None


def parse_reference(text: str) -> Reference:
    """What a reference on the command line means.

    Raises:
        UsageError: it has none of the forms above.
    """
    if text.startswith(REGISTRY):
        return _registry(text)
    if text.startswith(_LAYOUT):
        return _layout(text.removeprefix(_LAYOUT), text)
    if _SCHEME.fullmatch(text):
        return _layout(text, text)
    if text.endswith(_ARCHIVE) and text != _ARCHIVE:
        return Reference(kind="archive", place=text)
    raise _unreadable(text)


def _registry(text: str) -> Reference:
    match = _REGISTRY.fullmatch(text)
    if match is None or len(match["repository"]) > _MOST_NAME or int(match["port"] or 0) > 65535:
        raise _unreadable(text)
    place = f"{match['host']}/{match['repository']}"
    return Reference(kind="registry", place=place, tag=match["tag"] or LATEST, digest=match["digest"] or "")


def _layout(place: str, text: str) -> Reference:
    tagged = _TAGGED.fullmatch(place)
    tag = LATEST
    if tagged:
        place, tag = tagged["place"], tagged["tag"]
    if not place or place.endswith(_ARCHIVE) or "\0" in place:
        raise _unreadable(text)
    return Reference(kind="layout", place=place, tag=tag)


def _unreadable(text: str) -> UsageError:
    return UsageError(
        "this is no place that a bundle can be shipped to or from",
        got=f"{text!r:.200}",
        expected="oci://host[:port]/name[:tag|@digest], oci-layout:PATH[:tag], PATH.tar, or a URL of a folder (s3://…)",
        fix="oci://registry.example.com/team/sdxl:1 (names are in lower case)",
    )
