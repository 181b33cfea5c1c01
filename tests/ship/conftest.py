"""Registries, and a place of the test's own for everything that is remembered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_registry import Hostile, hostile

from benchmarks.oci_registry import Missing, Running, program, registry
from sdxl_trt.trust import KEY_VARIABLE, hosts


@pytest.fixture(autouse=True)
def own_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setattr(hosts, "SYSTEM_KEYS", tmp_path / "etc" / "trusted.pem")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Debian's docker-registry."""
    try:
        program("docker-registry")
    except Missing as error:
        pytest.skip(str(error))
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def server() -> Iterator[Hostile]:
    """One that does what the test tells it."""
    with hostile() as state:
        yield state


@pytest.fixture(scope="session")
def skopeo() -> Path:
    try:
        return program("skopeo")
    except Missing as error:
        pytest.skip(str(error))
