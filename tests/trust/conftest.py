"""Keys, and hosts that have some of them or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from alterations import Scene
from signed_bundles import Keys, Reader, copy_bundle, make_keys, sign_bundle, write_bundle

from sdxl_trt.trust import KEY_VARIABLE, hosts


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(autouse=True)
def host_without_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever this machine has."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(hosts, "SYSTEM_KEYS", tmp_path / "etc" / "trusted.pem")


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make this a host that trusts the owners of these public keys."""

    def trust(*paths: Path) -> None:
        monkeypatch.setenv(KEY_VARIABLE, ":".join(map(str, paths)))

    return trust


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Path:
    """Two bundles that one key signed."""
    folder = tmp_path_factory.mktemp("originals")
    for name in ("bundle", "sibling"):
        write_bundle(folder / name, name=name, chunked=True)
        sign_bundle(folder / name, keys.private)
    return folder


@pytest.fixture
def scene(originals: Path, tmp_path: Path, keys: Keys, trusting: Callable[..., None]) -> Scene:
    """Copies, on a host that trusts who signed them."""
    trusting(keys.public)
    bundle, sibling = (copy_bundle(originals / name, tmp_path / name) for name in ("bundle", "sibling"))
    return Scene(bundle=bundle, sibling=sibling, keys=keys)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    return Reader(monkeypatch)
