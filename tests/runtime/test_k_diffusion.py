"""What diffusers has no scheduler for, against k-diffusion's own function, in float64 and with the same noise.

k-diffusion depends on wandb, kornia and more, none of which its samplers use: scripts/environment installs it without,
and its module of samplers alone is loaded here, with the one function that this takes from another module.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from columns import run_table
from reference_schedulers import SEED, SHAPE, network

from sdxl_trt.runtime.noise import TorchGenerator
from sdxl_trt.runtime.samplers import SAMPLERS, make_table
from sdxl_trt.runtime.table import Table
from sdxl_trt.spec import Column

REQUIRED = 5e-6
SDXL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
CASES = [
    ("dpmpp_2s_a", "sample_dpmpp_2s_ancestral", {}),
    ("dpmpp_2s_a", "sample_dpmpp_2s_ancestral", {"timestep_spacing": "trailing"}),
    ("dpmpp_2s_a", "sample_dpmpp_2s_ancestral", {"use_karras_sigmas": True}),
    ("euler_a", "sample_euler_ancestral", {}),
]


@pytest.fixture(scope="module")
def k_diffusion() -> Any:
    pytest.importorskip("torchdiffeq", reason="k-diffusion is compared with only where it is installed")
    found = importlib.util.find_spec("k_diffusion")
    if found is None or found.origin is None:
        pytest.skip("k-diffusion is compared with only where it is installed")
    package, utils = ModuleType("k_diffusion_samplers"), ModuleType("k_diffusion_samplers.utils")
    package.__path__ = [str(Path(found.origin).parent)]
    package.utils, utils.append_dims = utils, lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]
    sys.modules |= {package.__name__: package, utils.__name__: utils}
    return importlib.import_module("k_diffusion_samplers.sampling")


def run_theirs(function: Any, table: Table, sigmas: Any) -> Any:
    """A sampler of k-diffusion over an ε network that is told the timesteps of our table, one evaluation each."""
    import torch

    source, told = TorchGenerator(SEED), iter(table.columns[:, Column.timestep.start].tolist())

    def denoised(x: Any, sigma: Any) -> Any:
        level = float(sigma[0])
        output = network((x[0] / np.sqrt(level**2 + 1)).float().numpy(), next(told))
        return x - level * torch.from_numpy(output)[None].double()

    def draw(*_: Any) -> Any:
        return torch.from_numpy(source.normal((1, *SHAPE))).double()

    start = draw() * float(np.float32(table.initial_scale))
    return function(denoised, start, torch.from_numpy(sigmas.copy()), disable=True, noise_sampler=draw)[0].numpy()


@pytest.mark.parametrize(("name", "function", "config"), CASES, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_results_are_k_diffusions(k_diffusion: Any, name: str, function: str, config: Any, steps: int) -> None:
    sampler, table = SAMPLERS[name], make_table(SDXL | config, steps, name)
    sigmas = sampler.schedule(sampler.scheduler.settings(SDXL | config, {}), steps).sigmas
    wanted = run_theirs(getattr(k_diffusion, function), table, sigmas)
    source = TorchGenerator(SEED)
    start = np.float32(table.initial_scale) * source.normal((1, *SHAPE))[0]
    got = run_table(table, network, start, lambda: source.normal((1, *SHAPE))[0])
    error = float(np.abs(got - wanted).max() / np.abs(wanted).max())
    print(f"{name} {config}, {steps} steps: measured {error:.1e}, required {REQUIRED:.0e}")
    assert error <= REQUIRED
