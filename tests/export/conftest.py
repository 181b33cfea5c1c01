"""The hub on this machine, and a user of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_client import DECOYS, SHAPES, TUNED, Client
from loopback_hub import Hub, serving

from sdxl_trt.paths import DEMO_CHECKPOINT


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    shutil.copytree(DEMO_CHECKPOINT, root / SHAPES)
    for name in DECOYS:
        (root / SHAPES / name).parent.mkdir(exist_ok=True)
        (root / SHAPES / name).write_text("not to be fetched")
    with serving(root) as hub:
        yield hub


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Iterator[Client]:
    yield Client(hub, tmp_path)
    fresh = Hub(hub.root)
    for name in ("token", "down", "gated", "sizes", "broken", "stalled", "altered"):
        setattr(hub, name, getattr(fresh, name))
    for folder in (hub.root / "someone").iterdir():
        if folder.name != Path(SHAPES).name:
            shutil.rmtree(folder)


@pytest.fixture
def tuned(hub: Hub) -> Path:
    """A repository's folder, to be filled."""
    folder = hub.root / TUNED
    folder.mkdir()
    return folder
