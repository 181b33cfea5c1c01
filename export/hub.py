"""Models on the Hugging Face hub: the files of a repository that an export reads, and no others, in the hub's cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, ResolvedRevision, constants
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from sdxl_trt.errors import CheckpointError
from sdxl_trt.export.folder import ENCODERS, PIPELINES, read_json
from sdxl_trt.export.hub_download import HubFile, cached_repository, download
from sdxl_trt.export.hub_errors import in_words, one_line, unreachable
from sdxl_trt.export.safetensors import shard_names
from sdxl_trt.progress import Progress, silent
from sdxl_trt.version import __version__

TOKENIZER_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)

VARIANTS = (
    ".safetensors.index.fp16.json",
    ".fp16.safetensors",
    ".fp16.safetensors.index.json",
    ".safetensors.index.json",
    ".safetensors",
)
"""How a component's weights may be stored, the first that is there counts: as `component_tensors` reads them."""


def fetch_model(
    repository: str, *, file: str | None = None, revision: str | None = None, progress: Progress = silent
) -> Path:
    """Fetch a model, in fp16 where it is published so, into huggingface_hub's cache, unless it is there.

    Tokens, HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE and telemetry are as huggingface_hub has them. Without the hub, a
    complete model in the cache does.

    Args:
        repository: owner/name.
        file: a single-file checkpoint in it.
        revision: a branch, tag or commit; the main branch by default.
        progress: told of bytes.

    Returns:
        A folder in diffusers' layout; or a .safetensors file, where one was asked for or is all there is.

    Raises:
        CheckpointError: there is no such model, or no way to it, or it is no SDXL, or it lacks a part. Weights are
            fetched last.
        OutputError: the cache cannot be written, or has no room.
    """
    with in_words(repository):
        snapshot = _open(repository, revision)
        if file is None and "model_index.json" not in snapshot.names:
            file = _only_file(snapshot)
        names = [*([file] if file else _layout(snapshot)), *snapshot.licences()]
        if missing := [name for name in names if name not in snapshot.names]:
            raise snapshot.lacks(*missing)
        if absent := [snapshot.hub[name] for name in names if not (snapshot.folder / name).is_file()]:
            download(repository, snapshot.commit, absent, progress)
    return snapshot.folder / file if file else snapshot.folder


@dataclass(frozen=True, kw_only=True)
class _Snapshot:
    """A repository at one commit."""

    repository: str
    commit: ResolvedRevision
    folder: Path
    """Its place in the cache."""
    hub: dict[str, HubFile]
    """What the hub has, by path; empty where it cannot be reached."""
    names: frozenset[str]
    """What the hub has; what the cache has, where the hub cannot be reached."""
    trouble: str = ""
    """Why it cannot be reached."""

    def read(self, name: str) -> Path:
        """A file, fetched if need be."""
        return Path(_api().hf_hub_download(self.repository, name, revision=self.commit))

    def licences(self) -> list[str]:
        return sorted(name for name in self.names if "/" not in name and name.lower().startswith("licen"))

    def lacks(self, *missing: str) -> CheckpointError:
        """The error for files that are not there."""
        if self.trouble:
            return unreachable(self.repository, f"{self.trouble}; and a cache without {', '.join(missing)}")
        return CheckpointError(
            f"{self.repository} is not complete",
            got=f"no {', '.join(missing)}",
            expected="a whole SDXL in diffusers' layout",
            fix="give another repository or revision (owner/name@revision)",
        )


def _api() -> HfApi:
    return HfApi(library_name="sdxl-trt", library_version=__version__)


def _open(repository: str, revision: str | None) -> _Snapshot:
    try:
        info = _api().model_info(
            repository, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
    except (OfflineModeIsEnabled, httpx2.HTTPError) as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            raise
        return _open_cached(repository, revision, one_line(error))
    _api().resolve_revision(repository, revision=revision)  # notes the commit down, for a day without network
    commit = ResolvedRevision(str(info.sha), initial=revision)
    files = {
        file.rfilename: HubFile(path=file.rfilename, size=file.size or 0, sha256=file.lfs.sha256 if file.lfs else None)
        for file in info.siblings or ()
    }
    folder = cached_repository(repository) / "snapshots" / commit.resolved
    return _Snapshot(repository=repository, commit=commit, folder=folder, hub=files, names=frozenset(files))


def _open_cached(repository: str, revision: str | None, trouble: str) -> _Snapshot:
    commit = _api().resolve_revision(repository, revision=revision, local_files_only=True)
    folder = cached_repository(repository) / "snapshots" / commit.resolved
    names = frozenset(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return _Snapshot(repository=repository, commit=commit, folder=folder, hub={}, names=names, trouble=trouble)


def _layout(snapshot: _Snapshot) -> list[str]:
    """The files of a model in diffusers' layout that an export reads, model_index.json first."""
    index = read_json(snapshot.read("model_index.json"))
    _check_pipeline(snapshot.repository, index)
    names = ["model_index.json", "scheduler/scheduler_config.json"]
    encoders = [name for name in ENCODERS if (index.get(name) or [None])[0]]
    for folder in (ENCODERS[name] for name in encoders):
        found = [name for file in TOKENIZER_FILES if (name := f"{folder}/{file}") in snapshot.names]
        names += found or [f"{folder}/tokenizer.json"]
    for component in (*encoders, "unet", "vae"):
        names += [f"{component}/config.json", *_weights(snapshot, component)]
    return names


def _check_pipeline(repository: str, index: dict[str, Any]) -> None:
    if index.get("_class_name") not in PIPELINES:
        raise CheckpointError(
            f"{repository} is not an SDXL model",
            got=f"a {index.get('_class_name')}; nothing but its model_index.json was fetched",
            expected=" or ".join(PIPELINES),
            fix="this tool builds SDXL base, refiner, Turbo and inpainting models",
        )


def _weights(snapshot: _Snapshot, component: str) -> list[str]:
    """A component's weights: one file, or an index and its shards."""
    stem = f"{component}/{'model' if component in ENCODERS else 'diffusion_pytorch_model'}"
    for name in (stem + variant for variant in VARIANTS):
        if name in snapshot.names:
            shards = shard_names(snapshot.read(name)) if name.endswith(".json") else []
            return [name, *(f"{component}/{shard}" for shard in shards)]
    pickles = [name for name in snapshot.names if name.startswith(f"{component}/") and name.endswith(".bin")]
    raise _pickled(snapshot.repository, pickles) if pickles else snapshot.lacks(f"{stem}.safetensors")


def _only_file(snapshot: _Snapshot) -> str:
    """The single-file checkpoint of a repository that has no model in diffusers' layout."""
    top = sorted(name for name in snapshot.names if "/" not in name)
    files = [name for name in top if name.endswith(".safetensors")]
    if len(files) == 1:
        return files[0]
    if snapshot.trouble:
        raise snapshot.lacks("model_index.json")
    if pickles := [name for name in top if name.endswith((".ckpt", ".pt", ".bin"))] if not files else []:
        raise _pickled(snapshot.repository, pickles)
    raise CheckpointError(
        f"{snapshot.repository} holds no model in diffusers' layout"
        + (", and more than one .safetensors file" if files else ""),
        got=", ".join(files or top) or "an empty repository",
        expected="model_index.json, or one .safetensors file",
        fix=f"give one: {' or '.join(f'{snapshot.repository}/{name}' for name in files)}"
        if files
        else "give a model's repository",
    )


def _pickled(repository: str, pickles: list[str]) -> CheckpointError:
    return CheckpointError(
        f"{repository} has weights that only Python's pickle can read",
        got=", ".join(sorted(pickles)),
        expected="safetensors: loading a pickle runs whatever code is in it",
        fix="convert in a sandbox: pipeline.save_pretrained(DIR, safe_serialization=True), then give DIR",
    )
