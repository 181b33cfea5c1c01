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
        BuildError: it could not be built; the reason is part of the message.
    """
    bundle = bundles_folder() / "demo"
    if (bundle / "bundle.json").exists():
        return bundle
    print("building the demo model for this machine's CPU first; this happens once", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "sdxl_trt", "build", "demo", "--gpu", "cpu", "-o", str(bundle)]
    build = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if build.returncode:
        raise BuildError(
            "the demo model could not be built",
            got=build.stderr.rpartition("error: ")[2].strip(),
            fix=" ".join(command),
        )
    return bundle
