"""diffusers in float64: its schedulers ask for float32 by name, which here means float64; noise is the same numbers."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from sdxl_trt.runtime.samplers import Sampler


class _Doubled(types.ModuleType):
    """A module whose float32 is its float64."""

    def __init__(self, module: types.ModuleType) -> None:
        super().__init__(module.__name__)
        self._module, self.float32 = module, module.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@contextmanager
def double_precision(sampler: Sampler) -> Iterator[None]:
    """Pipelines whose modules are float64 compute in it throughout, schedules and coefficients included.

    What stays in float32 is what was drawn (the noise must be the same) and the sinusoids of timesteps, which are
    part of the network.
    """
    import diffusers
    import torch

    module = sys.modules[getattr(diffusers, sampler.scheduler.name).__module__]
    drawn = torch.randn

    def randn(*shape: Any, dtype: Any = None, **options: Any) -> Any:
        return drawn(*shape, dtype=torch.float32, **options).to(dtype or torch.float64)

    with ExitStack() as stack:
        for name, library in (("torch", torch), ("np", np)):
            if hasattr(module, name):
                stack.enter_context(patch.object(module, name, _Doubled(library)))
        stack.enter_context(patch.object(torch, "randn", randn))
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        stack.callback(torch.set_default_dtype, default)
        yield
