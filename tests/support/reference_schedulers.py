"""diffusers' schedulers run on a cheap model, beside the same run by a table.

They compute in float64, from their own float32 σ and with noise that torch draws in float32, so that what differs is
the coefficients, and not how float32 rounds differences of nearly equal numbers. Both sides ask for the Brownian path
at times of four digits: the last of float32's, which its logarithms get wrong, moves it.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
from columns import run_table
from numpy.typing import NDArray

from sdxl_trt.runtime.brownian import BrownianPath
from sdxl_trt.runtime.noise import TorchGenerator
from sdxl_trt.runtime.table import Table

Array = NDArray[Any]
SHAPE = (4, 4, 4)
SEED = 7
_MIX = np.random.default_rng(1).standard_normal((64, 64)) / 8


def network(sample: Array, timestep: float) -> Array:
    """A model with a bounded output that depends on all of the sample and on the timestep; in the sample's dtype."""
    flat = sample.reshape(-1) @ _MIX.astype(sample.dtype)
    return np.tanh(flat.reshape(sample.shape) + sample.dtype.type(np.sin(timestep / 100)))


def image() -> NDArray[np.float32]:
    """What partial runs begin with."""
    return np.random.default_rng(5).standard_normal(SHAPE).astype(np.float32)


def run_ours(table: Table) -> Array:
    """The result of a table, of the noise that diffusers draws."""
    source = TorchGenerator(SEED)
    noise = source.normal((1, *SHAPE))[0]
    path = None
    if table.brownian is not None:
        lowest, highest, seed = table.brownian
        assert seed is not None
        path = functools.partial(_increment, BrownianPath(SHAPE, lowest=lowest, highest=highest, seed=seed))
    start = np.float32(table.initial_image) * image() + np.float32(table.initial_scale) * noise
    return run_table(table, network, start, lambda: source.normal((1, *SHAPE))[0], path)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What a pipeline does with a run's timesteps."""

    strength: float | None = None
    start: float | None = None
    end: float | None = None


WHOLE = Cut()


def run_theirs(scheduler: Any, steps: int, cut: Cut = WHOLE, **arguments: Any) -> Array:
    """The same run by diffusers: StableDiffusionXLImg2ImgPipeline's own get_timesteps, then its loop."""
    import torch
    import torchsde

    scheduler.set_timesteps(steps)
    for name, value in vars(scheduler).items():
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32 and name != "timesteps":
            setattr(scheduler, name, value.double())
    generator = torch.Generator("cpu").manual_seed(SEED)
    noise = torch.randn((1, *SHAPE), generator=generator).double()
    picture = torch.from_numpy(image())[None].double()
    timesteps, latents = scheduler.timesteps, noise * scheduler.init_noise_sigma
    if cut.strength is not None or cut.start is not None:
        timesteps = _img2img_timesteps(scheduler, steps, cut)
        latents = picture if cut.start is not None else scheduler.add_noise(picture, noise, timesteps[:1])
    if cut.end is not None:
        trained = scheduler.config.num_train_timesteps
        cutoff = round(trained - (cut.end * trained))
        timesteps = timesteps[: len([each for each in timesteps if each >= cutoff])]
    if "generator" in inspect.signature(scheduler.step).parameters:
        arguments["generator"] = generator
    with patch.object(torchsde, "BrownianInterval", functools.partial(_Interval, torchsde.BrownianInterval)):
        for timestep in timesteps:
            sample = scheduler.scale_model_input(latents, timestep)
            output = torch.from_numpy(network(sample[0].float().numpy(), float(timestep)))[None].double()
            latents = scheduler.step(output, timestep, latents, return_dict=False, **arguments)[0]
    return np.asarray(latents[0].numpy())


def _img2img_timesteps(scheduler: Any, steps: int, cut: Cut) -> Any:
    from diffusers import StableDiffusionXLImg2ImgPipeline

    pipeline = types.SimpleNamespace(scheduler=scheduler)
    strength = 1.0 if cut.strength is None else cut.strength
    return StableDiffusionXLImg2ImgPipeline.get_timesteps(pipeline, steps, strength, "cpu", denoising_start=cut.start)[
        0
    ]


def make_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """A scheduler of diffusers that draws float32 noise whatever it computes in."""
    import diffusers
    import torch
    from diffusers.utils.torch_utils import randn_tensor

    def drawn(*arguments: Any, dtype: Any = None, **options: Any) -> Any:
        return randn_tensor(*arguments, dtype=torch.float32, **options).to(dtype)

    kind = getattr(diffusers, name)
    module: Any = sys.modules[kind.__module__]
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = drawn
    return kind.from_config(config)


class _Interval:
    """torchsde's, at rounded times and of float32 noise, scaled in float64."""

    def __init__(self, make: Any, **options: Any) -> None:
        import torch

        self._interval = make(**options | {"dtype": torch.float32})

    def __call__(self, first: Any, second: Any) -> Any:
        low, high = _rounded(float(first)), _rounded(float(second))
        return self._interval(low, high).double() * np.sqrt((float(second) - float(first)) / (high - low))


def _increment(path: BrownianPath, first: float, second: float) -> NDArray[np.float32]:
    return path.increment(_rounded(first), _rounded(second))


def _rounded(time: float) -> float:
    return float(f"{time:.4g}")
