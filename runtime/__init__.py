"""Bundles into pictures, with neither torch nor the checkpoint."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdxl_trt.runtime.fleet import Fleet
    from sdxl_trt.runtime.pipeline import Pipeline
    from sdxl_trt.runtime.prompts.embeds import PromptEmbeds
    from sdxl_trt.runtime.request import Request, Resolved
    from sdxl_trt.runtime.results import Result

__all__ = ["Fleet", "Pipeline", "PromptEmbeds", "Request", "Resolved", "Result"]

_HOMES = {
    "Fleet": "fleet",
    "Pipeline": "pipeline",
    "PromptEmbeds": "prompts.embeds",
    "Request": "request",
    "Resolved": "request",
    "Result": "results",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: who lists the samplers needs no pipeline."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
