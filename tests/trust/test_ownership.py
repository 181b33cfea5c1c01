"""Who could write what: modes, owners, links, and mounts that nobody can write to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from signed_bundles import Keys
from trt_bench import Bench

from sdxl_trt.runtime.engine import allocate
from sdxl_trt.trust.ownership import way_writable_by_others, writable_by_others


@pytest.mark.parametrize(("mode", "others"), [(0o600, False), (0o644, False), (0o664, True), (0o646, True)])
def test_modes(tmp_path: Path, mode: int, others: bool) -> None:
    file = tmp_path / "file"
    file.touch()
    file.chmod(mode)
    assert (writable_by_others(file) is not None) == others
    assert (way_writable_by_others(file) is not None) == others


def test_folders_above(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "file"
    file.parent.mkdir(parents=True)
    file.touch()
    assert way_writable_by_others(file) is None
    (tmp_path / "a").chmod(0o777)
    assert writable_by_others(file) is None
    assert way_writable_by_others(file) == f"{tmp_path / 'a'} may be written by others (drwxrwxrwx)"
    (tmp_path / "a").chmod(0o1777)
    assert way_writable_by_others(file) is None, "as in /tmp, others cannot rename what is not theirs"
    assert writable_by_others(tmp_path / "a") is not None, "but they could add to it"


def test_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root and this user; the same files, looked at by somebody else."""
    file = tmp_path / "file"
    file.touch()
    assert writable_by_others(file) is None
    owner = file.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 4321)
    assert (writable_by_others(file) is None) == (owner == 0)
    found = file.lstat()
    monkeypatch.setattr(Path, "lstat", lambda _: SimpleNamespace(st_uid=owner + 1, st_mode=found.st_mode))
    assert writable_by_others(file) == f"{file} belongs to another user (uid {owner + 1})"


def test_what_is_mounted_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes come with any mode and owner; here the mount is, by the system's word."""
    file = tmp_path / "file"
    file.touch()
    file.chmod(0o666)
    assert writable_by_others(file)
    real = os.statvfs

    def read_only(path: Any) -> Any:
        return SimpleNamespace(f_flag=real(path).f_flag | os.ST_RDONLY)

    monkeypatch.setattr(os, "statvfs", read_only)
    assert writable_by_others(file) is None


def test_kernels_that_others_could_write_are_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: Keys, trusting: Callable[..., None]
) -> None:
    """TensorRT for RTX keeps them in the cache folder; they are executed, and nobody signs them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bench = Bench(tmp_path / "bundle", "tensorrt-rtx", monkeypatch)

    def compiled() -> int:
        bench.new_process()
        engine = bench.open()
        engine.bind(allocate(engine, bench.device, {"slots": 2}))
        return bench.trt.calls.count("compile")

    assert [compiled(), compiled()] == [1, 1]
    (tmp_path / "cache").chmod(0o777)
    assert compiled() == 1, "a host without keys takes what is there"
    trusting(keys.public)
    assert compiled() == 2
    (tmp_path / "cache").chmod(0o755)
    assert compiled() == 2
