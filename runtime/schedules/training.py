"""The noise levels a model was trained at, from its betas, in float32 as torch computes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import SchedulerError

_ZERO_SNR_ALPHA_BAR = 2.0**-24  # instead of 0, so that the first σ is finite (4096)


def train_alpha_bars(settings: Mapping[str, Any]) -> NDArray[np.float32]:
    """ᾱ of every training timestep, descending, float32 [num_train_timesteps]; the last is 0 at zero terminal SNR.

    In float32 as in torch, which rounds cumulative products once: exact arithmetic would be off by 1e-5 to 3e-4.

    Raises:
        SchedulerError: the betas give no usable levels.
    """
    betas = _betas(settings)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if settings["rescale_betas_zero_snr"]:
            betas = _zero_terminal_snr(betas)
        alpha_bars = np.cumprod(1 - betas, dtype=np.float64).astype(np.float32)
    usable = np.isfinite(alpha_bars) & (alpha_bars < 1) & (alpha_bars > 0)
    if settings["rescale_betas_zero_snr"]:
        usable[-1] = alpha_bars[-1] >= 0
    if not usable.all():
        raise SchedulerError(
            "the scheduler's betas give no usable noise levels",
            got=f"signal from {alpha_bars.max()} to {alpha_bars.min()} of the variance",
            expected="every level between noise alone and picture alone",
            fix="correct beta_start, beta_end or trained_betas in scheduler_config.json",
        )
    return alpha_bars


def finite(alpha_bars: NDArray[np.float32], settings: Mapping[str, Any]) -> NDArray[np.float32]:
    """The same with a level of almost pure noise in place of pure noise, as samplers in σ need it."""
    if settings["rescale_betas_zero_snr"]:
        alpha_bars = alpha_bars.copy()
        alpha_bars[-1] = _ZERO_SNR_ALPHA_BAR
    return alpha_bars


def _betas(settings: Mapping[str, Any]) -> NDArray[np.float32]:
    """Variance of the noise that each training timestep adds, float32 [num_train_timesteps]."""
    if settings["trained_betas"] is not None:
        return np.array(settings["trained_betas"], np.float32)
    start, end, count = (settings[key] for key in ("beta_start", "beta_end", "num_train_timesteps"))
    if settings["beta_schedule"] == "linear":
        return torch_linspace(start, end, count)
    if settings["beta_schedule"] == "scaled_linear":
        return torch_linspace(math.sqrt(start), math.sqrt(end), count) ** 2
    # Nichol & Dhariwal 2021 (arXiv 2102.09672), equation 17
    alpha_bar = [math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(count + 1)]
    return np.array([min(1 - alpha_bar[i + 1] / alpha_bar[i], 0.999) for i in range(count)], np.float32)


def _zero_terminal_snr(betas: NDArray[np.float32]) -> NDArray[np.float32]:
    """Betas by which the last training timestep keeps no signal; arXiv 2305.08891, algorithm 1."""
    root = np.sqrt(np.cumprod(1 - betas, dtype=np.float64).astype(np.float32))
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    alpha_bar = root**2
    betas[0], betas[1:] = 1 - alpha_bar[0], 1 - alpha_bar[1:] / alpha_bar[:-1]
    return betas


def torch_linspace(start: float, end: float, count: int) -> NDArray[np.float32]:
    """torch.linspace in float32, to the bit: a float32 step, counted from either end with one rounding."""
    if count == 1:
        return np.array([start], np.float32)
    first, last = np.float32(start), np.float32(end)
    step = float((last - first) / np.float32(count - 1))
    index = np.arange(count)
    rising, falling = float(first) + step * index, float(last) - step * (count - 1 - index)
    return np.where(index < count // 2, rising, falling).astype(np.float32)
