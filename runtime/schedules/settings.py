"""Scheduler configs, checked: what an entry may be, and what is refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from numbers import Integral
from typing import Any, Final, NoReturn

from sdxl_trt.errors import SchedulerError, UsageError

_DEFAULTS: Final[Mapping[str, Any]] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "interpolation_type": "linear",
    "timestep_spacing": "linspace",
    "timestep_type": "discrete",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
    "final_sigmas_type": "zero",
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
    "sigma_min": None,
    "sigma_max": None,
    "sigma_data": None,
    "sigma_schedule": "karras",
    "rho": 7.0,
    "solver_order": 2,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "lower_order_final": True,
    "euler_at_final": False,
    "lambda_min_clipped": -math.inf,
    "predict_x0": True,
    "disable_corrector": (),
    "set_alpha_to_one": True,
    "skip_prk_steps": False,
    "variance_type": None,
    "original_inference_steps": 50,
    "timestep_scaling": 10.0,
    "noise_sampler_seed": None,
    "eta": 0.0,
}
"""Where a scheduler's class has no such option, or no other default."""
_SWITCH = (False, True)
_CHOICES: Final[Mapping[str, tuple[Any, ...]]] = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "interpolation_type": ("linear", "log_linear"),
    "timestep_spacing": ("linspace", "leading", "trailing"),
    "timestep_type": ("discrete", "continuous"),
    "rescale_betas_zero_snr": (*_SWITCH, None),
    "final_sigmas_type": ("zero", "sigma_min"),
    "use_karras_sigmas": (*_SWITCH, None),
    "use_exponential_sigmas": (*_SWITCH, None),
    "use_beta_sigmas": (*_SWITCH, None),
    "use_lu_lambdas": (*_SWITCH, None),
    "sigma_schedule": ("karras", "exponential"),
    "solver_order": (1, 2, 3),
    "lower_order_final": _SWITCH,
    "euler_at_final": _SWITCH,
    "predict_x0": _SWITCH,
    "set_alpha_to_one": _SWITCH,
    "skip_prk_steps": _SWITCH,
}
_OFF: Final[Mapping[str, tuple[Any, ...]]] = {
    "use_flow_sigmas": (False, None),
    "use_dynamic_shifting": (False, None),
    "shift_terminal": (None,),
    "solver_p": (None,),
}
"""Options by which levels or outputs would differ, with the values at which they do not."""
_NOT_LINEAR: Final[Mapping[str, tuple[Any, ...]]] = {"thresholding": (False, None), "clip_sample": (False, None)}
_HARMLESS: Final = frozenset(
    ("clip_sample_range", "corrector_order", "dynamic_thresholding_ratio", "flow_shift", "predictor_order",
     "sample_max_value", "time_shift_type")
)  # fmt: skip
"""Options of other recurrences, and of switches that are off: no influence, whatever their value."""

_MAX_TRAIN_TIMESTEPS = 100_000  # a config may be a stranger's: this bounds memory
_MAX_SIGMA = 1e5


def read_settings(
    config: Mapping[str, Any],
    defaults: Mapping[str, Any],
    choices: Mapping[str, tuple[Any, ...]],
    renamed: Mapping[str, Mapping[str, str]],
    overrides: Mapping[str, Any],
) -> dict[str, Any]:
    """Every option of a scheduler, from the config where its class has it.

    Like diffusers, an option that the class does not have is left alone; it must be one that is known. But what has no
    linear table is refused whatever the class: somebody meant it.

    Args:
        config: content of scheduler_config.json.
        defaults: the class's options.
        choices: values of its options, where they are its own.
        renamed: values that other classes use, and what this class takes them for.
        overrides: what was asked for, over config and defaults.

    Raises:
        SchedulerError: an option that has no linear table, is not supported or not known, or of an unusable value.
    """
    for key, value in config.items():
        _check_entry(key, value)
    given = {key: config[key] for key in defaults if key in config}
    settings = {**_DEFAULTS, **defaults, **given}
    for key, names in renamed.items():
        settings[key] = names.get(settings[key], settings[key]) if isinstance(settings[key], str) else settings[key]
    settings |= overrides
    for key, values in {**_CHOICES, **choices}.items():
        if not _is_among(settings[key], values):
            _refuse(key, settings[key], "has a value that is not known", values)
    _check_numbers(settings)
    _check_combinations(settings)
    return settings


def _check_entry(key: str, value: Any) -> None:
    if key in _NOT_LINEAR and value not in _NOT_LINEAR[key]:
        _refuse(key, value, "is not linear: no sampler table can hold it", _NOT_LINEAR[key])
    if key in _OFF and value not in _OFF[key]:
        _refuse(key, value, "is not supported", _OFF[key])
    known = (_DEFAULTS, _OFF, _NOT_LINEAR, _HARMLESS)
    if not (key.startswith("_") or any(key in names for names in known)):
        _refuse(key, value, "is not known", ("no such entry",))


def _check_numbers(settings: Mapping[str, Any]) -> None:
    trained, betas = settings["num_train_timesteps"], settings["trained_betas"]
    integers: tuple[tuple[str, int, int], ...] = (
        ("num_train_timesteps", 2, _MAX_TRAIN_TIMESTEPS),
        ("steps_offset", 0, trained),
        ("original_inference_steps", 1, _MAX_TRAIN_TIMESTEPS),
    )
    for key, least, most in integers:
        if not (is_integer(settings[key]) and least <= settings[key] <= most):
            _refuse(key, settings[key], "cannot be used", (f"an integer from {least} to {most}",))
    numbers = (("beta_start", 0.0, 1.0), ("beta_end", 0.0, 1.0), ("rho", 0.0, 100.0), ("timestep_scaling", 0.0, 1e6))
    optional = tuple((key, 0.0, _MAX_SIGMA) for key in ("sigma_min", "sigma_max", "sigma_data"))
    for key, low, high in (*numbers, *(entry for entry in optional if settings[entry[0]] is not None)):
        if not _is_between(settings[key], low, high):
            _refuse(key, settings[key], "cannot be used", (f"a number between {low:g} and {high:g}",))
    if betas is not None and not (isinstance(betas, list) and len(betas) == trained and all(map(_is_beta, betas))):
        got = f"{len(betas)} entries" if isinstance(betas, list) else betas
        _refuse("trained_betas", got, "cannot be used", (f"{trained} numbers between 0 and 1",))
    if not isinstance(settings["lambda_min_clipped"], int | float) or math.isnan(settings["lambda_min_clipped"]):
        _refuse("lambda_min_clipped", settings["lambda_min_clipped"], "cannot be used", ("a number",))
    skipped = settings["disable_corrector"]
    if not (isinstance(skipped, list | tuple) and all(map(is_integer, skipped))):
        _refuse("disable_corrector", skipped, "cannot be used", ("a list of steps",))
    _check_seed(settings["noise_sampler_seed"])


def _check_seed(seed: Any) -> None:
    if seed is not None and not (is_integer(seed) and 0 <= seed < 2**63):
        _refuse("noise_sampler_seed", seed, "cannot be used", ("an integer from 0 to 2**63 - 1",))


def _check_combinations(settings: Mapping[str, Any]) -> None:
    asked = [key for key in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas") if settings[key]]
    if len(asked) > 1:
        _refuse(asked[1], True, f"cannot go with {asked[0]}", (False,))
    if settings["rescale_betas_zero_snr"] and settings["prediction_type"] == "epsilon":
        _refuse(
            "prediction_type",
            "epsilon",
            "cannot go with rescale_betas_zero_snr: from noise alone, the noise says nothing of a picture",
            ("v_prediction", "sample"),
        )


def checked_steps(steps: Any, most: int, why: str) -> int:
    """Steps as an integer from 1 to `most`.

    Raises:
        UsageError: it is none; `why` says where the bound comes from.
    """
    if is_integer(steps) and 1 <= steps <= most:
        return int(steps)
    raise UsageError(
        "the number of steps is out of range",
        got=f"{steps!r} ({type(steps).__name__})",
        expected=f"an integer from 1 to {most}, {why}",
        fix=f"--steps {min(30, most)}",
    )


def is_integer(value: Any) -> bool:
    """Any library's integer, but no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_among(value: Any, values: tuple[Any, ...]) -> bool:
    """Whether it is one of them, and of its type: True is not 1."""
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in values)


def _is_between(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low < value < high


def _is_beta(value: Any) -> bool:
    return _is_between(value, 0.0, 1.0)


def _refuse(key: str, value: Any, why: str, accepted: tuple[Any, ...]) -> NoReturn:
    raise SchedulerError(
        f"the scheduler option {key} {why}",
        got=f"{key} = {value!r:.100}",
        expected=" or ".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in accepted),
        fix=f"change {key} in the model's scheduler/scheduler_config.json, or choose another sampler",
    )
