"""Stable Diffusion XL as TensorRT engines: build them here, run them anywhere, without PyTorch.

from sdxl_trt import Pipeline
pipe = Pipeline.load("bundle")
image = pipe("a red circle", steps=30, seed=7).images[0]
"""

from typing import TYPE_CHECKING, Any

from sdxl_trt.version import __version__

if TYPE_CHECKING:
    from sdxl_trt.runtime import Pipeline

__all__ = ["Pipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the runtime when it is asked for: building and `--help` do without it."""
    if name == "Pipeline":
        from sdxl_trt.runtime import Pipeline

        return Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
