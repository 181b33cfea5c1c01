"""A server over the demo model, for all that only ask it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from models import Models
from running import Running, running
from served import open_service

from sdxl_trt.runtime.serve.http.context import Context, Settings
from sdxl_trt.runtime.serve.http.metrics import Metrics
from sdxl_trt.runtime.serve.limits import Limits

BUILD = """
import sys
from pathlib import Path
from sdxl_trt.engines.build import build
from sdxl_trt.engines.targets import resolve_targets
from sdxl_trt.spec import Profile

profile = Profile.make(smallest=(64, 64), best=(128, 128), largest=(192, 192), batch=8)
build(Path(sys.argv[1]), Path(sys.argv[2]), resolve_targets(["cpu"]), profile=profile)
"""


@pytest.fixture(scope="session")
def wide_bundle(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model built for the CPU, 64 to 192 pixels and up to eight pictures at once."""
    bundle = tmp_path_factory.mktemp("wide") / "bundle"
    subprocess.run([sys.executable, "-c", BUILD, str(models.export("demo")), str(bundle)], check=True)
    return bundle


@pytest.fixture(scope="session")
def server(wide_bundle: Path) -> Iterator[Running]:
    """A server that nobody changes: real HTTP on 127.0.0.1, eight slots, no keys."""
    metrics = Metrics()
    service = open_service(wide_bundle, observer=metrics, limits=Limits(steps=300))
    with running(
        Context(service=service, settings=Settings(body_seconds=1.0, idle_seconds=1.5), metrics=metrics)
    ) as one:
        yield one
    assert service.drain(20)


@pytest.fixture
def idle(server: Running) -> Iterator[Running]:
    """The same, with nothing to do before and after a test."""
    server.wait_until_idle()
    yield server
    server.wait_until_idle()
