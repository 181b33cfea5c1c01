"""Stable Diffusion XL as TensorRT engines: build them here, run them anywhere, without PyTorch.

from sdxl_trt import Pipeline
pipe = Pipeline.load("bundle")
image = pipe("a red circle", steps=30, seed=7).images[0]
"""

import os
from typing import TYPE_CHECKING, Any

from sdxl_trt.version import __version__

if TYPE_CHECKING:
    from sdxl_trt.runtime import Fleet, Pipeline

# onnxruntime 1.29 and later report to Microsoft, and keep a device id on disk, unless told not to before they are
# imported. Nobody who makes a picture asked for that; who wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["Fleet", "Pipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the runtime when it is asked for: building and `--help` do without it."""
    if name in ("Fleet", "Pipeline"):
        import sdxl_trt.runtime

        return getattr(sdxl_trt.runtime, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
