"""What this host can run, and which target of a bundle that is."""

from __future__ import annotations

import platform
from pathlib import Path

from sdxl_trt.bundle import Host, Manifest, Target, choose_target
from sdxl_trt.errors import NoTargetForHost

RUNS = ("onnxruntime",)
"""Flavours that this version has a runtime for."""


def this_host() -> Host:
    """The processor, and the engine libraries that can be imported. No GPU: nothing here could use one."""
    return Host(processor=platform.machine(), flavours=_flavours(), sm=None)


def _flavours() -> dict[str, str]:
    try:
        import onnxruntime
    except ImportError:
        return {}
    return {"onnxruntime": onnxruntime.__version__}


def target_for_host(manifest: Manifest, bundle: Path) -> Target:
    """The best target of a bundle for this host.

    Raises:
        NoTargetForHost: none fits; says for each what differs, and what would help.
    """
    host = this_host()
    try:
        return choose_target(manifest, host, bundle)
    except NoTargetForHost as error:
        error_fix = _fix(manifest, host) or error.fix
        raise NoTargetForHost(error.what, got=error.got, expected=error.expected, fix=error_fix) from None


def _fix(manifest: Manifest, host: Host) -> str:
    """Better advice than to build again, where there is any."""
    flavours = {target.flavour for target in manifest.targets if target.processor == host.processor}
    if "onnxruntime" in flavours and not host.flavours:
        return "pip install 'sdxl-trt[cpu]', which brings the onnxruntime that this bundle needs"
    if flavours and not flavours & set(RUNS):
        return (
            f"this version of sdxl-trt builds {' and '.join(sorted(flavours))} engines and cannot run them yet; "
            "sdxl-trt build … --gpu cpu makes a bundle that runs here"
        )
    return ""
