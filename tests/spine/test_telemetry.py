"""A probe of onnxruntime: it keeps its device id and event store to itself only because we tell it to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = "import sdxl_trt, onnxruntime; onnxruntime.get_available_providers(); print(onnxruntime.SessionOptions())"


def leftovers(home: Path, **environment: str) -> list[Path]:
    """Files that importing onnxruntime after sdxl_trt leaves in an empty home."""
    home.mkdir()
    # Nothing else of this environment: variables such as CI silence it too.
    own = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, env=own | environment)
    return [path for path in home.rglob("*") if path.is_file()]


def test_no_telemetry(tmp_path: Path) -> None:
    assert leftovers(tmp_path / "ours") == []
    # The probe sees something to prevent: left alone, onnxruntime writes.
    assert leftovers(tmp_path / "asked", ORT_DISABLE_TELEMETRY="0")
