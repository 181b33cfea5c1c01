"""Older bundles in the place of newer ones: a signature does not say that nothing newer is signed.

For every repository a host remembers when the newest bundle that it took from there was made. What is compared are the
times that stand in signed manifests, so no clock of this host is asked. Bundles that nobody vouched for are neither
compared nor remembered: anybody could write a time into those.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sdxl_trt.decode import DecodeError, decode, loads
from sdxl_trt.errors import NotTrusted
from sdxl_trt.files import write_json


@dataclass(frozen=True, kw_only=True)
class _Record:
    repository: str
    created: str


class Freshness:
    """What is remembered, one file per repository.

    Args:
        bundles: the folder of all bundles; records are in a folder in it.
    """

    def __init__(self, bundles: Path) -> None:
        self._folder = bundles / ".freshness"

    def check(self, repository: str, created: str, replaced: str | None = None) -> None:
        """Refuse a bundle that is older than what was taken from the same repository, or than the one it replaces.

        Args:
            repository: without tag or digest.
            created: of the bundle's manifest, whose signature was checked.
            replaced: of the manifest that stands where the bundle shall go, if one does.

        Raises:
            NotTrusted: it is older, or a time cannot be read, or what was remembered cannot.
        """
        made = _time(created, repository)
        remembered = self._recall(repository)
        for known, what in (
            (remembered, f"the newest that came from {repository}"),
            (replaced, "the one in its place"),
        ):
            if known and made < _time(known, repository):
                raise NotTrusted(
                    f"the bundle of {repository} is older than {what}",
                    got=f"made {created}",
                    expected=f"made {known} or later",
                    fix="--allow-downgrade, if an older bundle is what you want",
                )

    def remember(self, repository: str, created: str) -> None:
        """Note what was taken; after a downgrade that was allowed, that is the older one.

        Raises:
            OutputError: the folder cannot be written.
        """
        record = _Record(repository=repository, created=created)
        write_json(self._file(repository), dataclasses.asdict(record))

    def _recall(self, repository: str) -> str | None:
        path = self._file(repository)
        try:
            return decode(_Record, loads(path.read_bytes(), max_bytes=2**16)).created
        except FileNotFoundError:
            return None
        except (OSError, DecodeError) as error:
            raise NotTrusted(
                f"what was remembered of {repository} cannot be read",
                got=f"{path}: {error}",
                expected="when the newest bundle from there was made",
                fix="delete that file: the next bundle will then be taken whatever its age",
            ) from error

    def _file(self, repository: str) -> Path:
        return self._folder / f"{hashlib.sha256(repository.encode()).hexdigest()[:32]}.json"


def _time(created: str, repository: str) -> datetime:
    """A manifest's time."""
    try:
        made = datetime.fromisoformat(created)
    except ValueError:
        made = None
    if made is None or made.tzinfo is None:
        raise NotTrusted(
            f"the age of the bundle of {repository} cannot be told",
            got=f"created {created[:80]!r}",
            expected="a time with its zone, as 2026-01-02T03:04:05+00:00",
            fix="build the bundle again",
        )
    return made
