"""The demo model's bundle for this host's CPU, built on first use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sdxl_trt.errors import BuildError
from sdxl_trt.paths import bundles_folder


def demo_bundle() -> Path:
    """The folder of the bundle. Building takes a minute or two, in a process of its own: this one stays without torch.

    Raises:
        BuildError: it could not be built; the reason was printed on standard error.
    """
    bundle = bundles_folder() / "demo"
    if (bundle / "bundle.json").exists():
        return bundle
    print("building the demo model for this machine's CPU first; this happens once", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "sdxl_trt", "build", "demo", "--gpu", "cpu", "-o", str(bundle)]
    status = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode  # its progress is shown
    if status:
        raise BuildError(
            "the demo model could not be built",
            got=f"exit status {status}; its own message stands above",
            fix=" ".join(command),
        )
    return bundle
