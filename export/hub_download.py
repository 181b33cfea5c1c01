"""Files of a hub repository into huggingface_hub's cache; weights so that a download goes on where it was stopped.

huggingface_hub 2 resumes while the process lives, and begins a file of gigabytes anew in the next one: each process
writes to a file of its own, and removes it. So weights are fetched here, with its functions, under its locks, and
under the name that it gave to partial files before; what they hold is then checked, and handed to it.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ResolvedRevision, constants, get_hf_file_metadata, hf_hub_url, snapshot_download
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers, tqdm  # type: ignore[attr-defined]  # lazy names

from sdxl_trt.errors import CheckpointError, OutputError
from sdxl_trt.files import sha256_of
from sdxl_trt.progress import Progress
from sdxl_trt.version import __version__


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file of a repository, as the hub lists it."""

    path: str
    size: int
    sha256: str | None
    """Of large files."""


def cached_repository(repository: str) -> Path:
    """The folder of a repository in the cache."""
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")


def download(repository: str, commit: ResolvedRevision, files: Sequence[HubFile], progress: Progress) -> None:
    """Fetch files, weights one by one and the largest first, the others together.

    Raises:
        CheckpointError: what was received is not what the hub promised.
        OutputError: there is no room for them.
        huggingface_hub's errors, httpx2's and OSError: the hub or the disk failed.
    """
    total = sum(file.size for file in files)
    _check_room(repository, total)
    report = _report(progress, f"fetch {repository}", total)
    for file in sorted(files, key=lambda file: file.size, reverse=True):
        if file.sha256 and file.path.endswith(".safetensors"):
            _fetch(repository, commit, file, report)
    snapshot_download(
        repository,
        revision=commit,
        allow_patterns=[glob.escape(file.path) for file in files],
        library_name="sdxl-trt",
        library_version=__version__,
        tqdm_class=_bar(lambda _bytes: None),
    )
    progress(f"fetch {repository}", total, total)


def _report(progress: Progress, stage: str, total: int) -> Callable[[int], None]:
    """Counts bytes; the stage is not over before its last file is in place."""
    done = 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        progress(stage, min(done, total - 1), total)

    return report


def _bar(report: Callable[[int], None]) -> type[tqdm]:
    """A progress bar as huggingface_hub asks for one, which shows nothing and reports."""

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs | {"disable": True})

        def update(self, n: float | None = 1) -> None:
            report(int(n or 0))

    return Bar


def _check_room(repository: str, needed: int) -> None:
    cache = Path(constants.HF_HUB_CACHE)
    while not cache.exists():
        cache = cache.parent
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise OutputError(
            f"no room for {repository}",
            got=f"{free / 1e9:.1f} GB free in {cache}",
            expected=f"{needed / 1e9:.1f} GB",
            fix="make room, or have the cache elsewhere: HF_HOME=DIR",
        )


def _fetch(repository: str, commit: ResolvedRevision, file: HubFile, report: Callable[[int], None]) -> None:
    """Fetch a weights file under the name that huggingface_hub looks for."""
    url = hf_hub_url(repository, file.path, revision=commit.resolved)
    name = get_hf_file_metadata(url).etag or str(file.sha256)
    folder = cached_repository(repository)
    blob, lock = folder / "blobs" / name, folder.parent / ".locks" / folder.name / f"{name}.lock"
    for path in (blob, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.exists():
            report(file.size)
        else:
            _fill(blob, url, file, report)


def _fill(blob: Path, url: str, file: HubFile, report: Callable[[int], None]) -> None:
    partial = blob.with_name(f"{blob.name}.incomplete")
    with partial.open("ab") as stream:
        if stream.tell() > file.size:
            stream.truncate(0)
            stream.seek(0)
        report(stream.tell())
        http_get(
            url,
            stream,
            resume_size=stream.tell(),
            headers=build_hf_headers(library_name="sdxl-trt", library_version=__version__),
            expected_size=file.size,
            tqdm_class=_bar(report),
        )
        stream.flush()
        os.fsync(stream.fileno())
    found = sha256_of(partial)
    if found != file.sha256:
        partial.unlink()
        raise CheckpointError(
            f"{file.path} was damaged on its way here",
            got=f"SHA-256 {found}",
            expected=f"SHA-256 {file.sha256}",
            fix="run this again",
        )
    partial.replace(blob)
