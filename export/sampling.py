"""The scheduler of a single file: SDXL's published one, with what tensors and metadata of the file say otherwise.

Marks are those that ComfyUI reads and writes, and Stability AI's model metadata (https://github.com/Stability-AI/ModelSpec).
Most files say nothing, and most of those are as SDXL base.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

EDM_KEYS = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
"""Tensors of a few numbers: Playground v2.5's latents, CosXL's noise levels."""

_PLAYGROUND = {
    "_class_name": "EDMDPMSolverMultistepScheduler",
    "algorithm_type": "dpmsolver++",
    "dynamic_thresholding_ratio": 0.995,
    "euler_at_final": False,
    "final_sigmas_type": "zero",
    "lower_order_final": True,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rho": 7.0,
    "sample_max_value": 1.0,
    "sigma_data": 0.5,
    "sigma_max": 80.0,
    "sigma_min": 0.002,
    "solver_order": 2,
    "solver_type": "midpoint",
    "thresholding": False,
}
"""scheduler_config.json of playgroundai/playground-v2.5-1024px-aesthetic."""

_COSXL = {"_class_name": "EDMEulerScheduler", "prediction_type": "v_prediction", "sigma_data": 1.0}


def is_turbo(metadata: Mapping[str, str]) -> bool:
    """SDXL Turbo, by its own metadata."""
    return "turbo" in metadata.get("modelspec.architecture", "")


def scheduler_config(
    published: dict[str, Any],
    names: Container[str],
    metadata: Mapping[str, str],
    numbers: Mapping[str, list[float]],
) -> dict[str, Any]:
    """scheduler_config.json as the model's authors would have written it.

    Args:
        published: SDXL's.
        names: of the file's tensors.
        numbers: values of those of `EDM_KEYS` that are there.
    """
    if {"edm_mean", "edm_std"} <= numbers.keys():
        return dict(_PLAYGROUND)
    if "edm_vpred.sigma_max" in numbers:
        (largest,), (smallest,) = (numbers.get(f"edm_vpred.sigma_{end}", [0.002]) for end in ("max", "min"))
        return _COSXL | {"sigma_max": largest, "sigma_min": smallest}
    config = dict(published)
    if is_turbo(metadata):
        config |= {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}
    stated = {metadata.get(f"modelspec.{key}") for key in ("prediction_type", "predict_key")}
    if "v_pred" in names or stated & {"v", "v_prediction"}:
        config["prediction_type"] = "v_prediction"
    if "ztsnr" in names:  # pure noise is then a level of its own, reached by trailing spacing alone (arXiv 2305.08891)
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return config
