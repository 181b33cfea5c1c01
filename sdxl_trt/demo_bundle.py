"""The demo models' bundles for this host's CPU, built on first use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sdxl_trt.errors import BuildError
from sdxl_trt.paths import DEMO_MODELS, bundles_folder


def bundle_folder(bundle: str | Path) -> Path:
    """The folder of a bundle that is given as its folder, or as the name of a demo model, which is built first.

    Raises:
        BuildError: as of `demo_bundle`.
    """
    return demo_bundle(str(bundle)) if str(bundle) in DEMO_MODELS else Path(bundle)


def demo_bundle(model: str = "demo") -> Path:
    """The folder of the bundle. Building takes a minute or two, in a process of its own: this one stays without torch.

    Args:
        model: one of `sdxl_trt.paths.DEMO_MODELS`.

    Raises:
        BuildError: it could not be built; the reason was printed on standard error.
    """
    bundle = bundles_folder() / model
    if (bundle / "bundle.json").exists():
        return bundle
    print(f"building the model {model!r} for this machine's CPU first; this happens once", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "sdxl_trt", "build", model, "--gpu", "cpu", "-o", str(bundle)]
    status = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode  # its progress is shown
    if status:
        raise BuildError(
            f"the model {model!r} could not be built",
            got=f"exit status {status}; its own message stands above",
            fix=" ".join(command),
        )
    return bundle
