"""PNDM: pseudo linear multistep, warmed up by pseudo Runge–Kutta or by repeating a step."""

from __future__ import annotations

from typing import Final

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime.levels import Level
from sdxl_trt.runtime.samplers.base import TRAINED, SchedulerClass
from sdxl_trt.runtime.schedules import Schedule
from sdxl_trt.runtime.table import Form, Tape

PNDM: Final = SchedulerClass(
    name="PNDMScheduler",
    defaults={**TRAINED, "timestep_spacing": "leading", "set_alpha_to_one": False, "skip_prk_steps": False},
    choices={"prediction_type": ("epsilon", "v_prediction")},
)
_ADAMS_BASHFORTH: Final = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
_RUNGE_KUTTA: Final = 12  # evaluations of the warm-up


def pndm(schedule: Schedule, tape: Tape) -> Form:
    """Liu et al. 2022 (arXiv 2202.09778): pseudo linear multistep, equations 11 to 13, after its warm-up.

    Like diffusers, it combines the network's outputs as they are, and takes the result for ε or v at the sample.

    Raises:
        UsageError: a run with Runge-Kutta's warm-up that begins part-way.
    """
    prk = not schedule.settings["skip_prk_steps"]
    if prk and schedule.begin:
        raise UsageError(
            "PNDM with Runge-Kutta steps cannot begin part-way: its warm-up is the run's first steps",
            got=f"a run that begins at evaluation {schedule.begin + 1}",
            expected="a whole run, or skip_prk_steps",
            fix="--sampler plms",
        )
    x, outputs, first = _runge_kutta(schedule, tape) if prk else _improved_euler(schedule, tape)
    stride = schedule.settings["num_train_timesteps"] // schedule.steps
    for timestep in schedule.timesteps[first:]:
        at = schedule.level_of_timestep(timestep)
        x, *outputs, x0 = tape.evaluate(x, *outputs, at=at)
        outputs = [_output(schedule.prediction, at, x, x0), *outputs][:4]
        combined = outputs[0] * 0.0
        for output, weight in zip(outputs, _ADAMS_BASHFORTH[len(outputs) - 1], strict=True):
            combined = combined + weight * output
        x = _moved(schedule, x, combined, timestep, timestep - stride)
        outputs = outputs[:3]
    return x


def _improved_euler(schedule: Schedule, tape: Tape) -> tuple[Form, list[Form], int]:
    """The first step, done again with the mean of the outputs at both its ends: sample, outputs, evaluations so far."""
    stride = schedule.settings["num_train_timesteps"] // schedule.steps
    first, *again = schedule.timesteps[schedule.begin :][:2]
    at = schedule.level_of_timestep(first)
    x, x0 = tape.evaluate(tape.start, at=at)
    output = _output(schedule.prediction, at, x, x0)
    predicted = _moved(schedule, x, output, first, first - stride)
    if not again:
        return predicted, [], schedule.begin + 1
    at = schedule.level_of_timestep(again[0])
    predicted, x, output, x0 = tape.evaluate(predicted, x, output, at=at)
    mean = (output + _output(schedule.prediction, at, predicted, x0)) / 2
    return _moved(schedule, x, mean, again[0] + stride, again[0]), [output], schedule.begin + 2


def _runge_kutta(schedule: Schedule, tape: Tape) -> tuple[Form, list[Form], int]:
    """Three steps of pseudo Runge-Kutta (equation 14), four evaluations each: sample, outputs, evaluations so far."""
    half = schedule.settings["num_train_timesteps"] // schedule.steps // 2
    x, outputs = tape.start, list[Form]()
    for block in schedule.timesteps[:_RUNGE_KUTTA].reshape(-1, 4):
        at = schedule.level_of_timestep(block[0])
        x, *outputs, x0 = tape.evaluate(x, *outputs, at=at)
        output = _output(schedule.prediction, at, x, x0)
        outputs, total = [output, *outputs], output / 6
        targets = (block[0] - half, block[1], block[2] - half, block[3])
        for timestep, target, weight in zip(block[1:], targets, (1 / 3, 1 / 3, 1 / 6), strict=False):
            at = schedule.level_of_timestep(timestep)
            between = _moved(schedule, x, output, block[0], target)
            between, x, total, *outputs, x0 = tape.evaluate(between, x, total, *outputs, at=at)
            output = _output(schedule.prediction, at, between, x0)
            total = total + weight * output
        x = _moved(schedule, x, total, block[0], targets[3])
    return x, outputs, _RUNGE_KUTTA


def _moved(schedule: Schedule, x: Form, output: Form, timestep: float, after: float) -> Form:
    """x from one timestep to another along the network's output: the paper's equation 11, which is DDIM's step."""
    here, there = schedule.mix_of_timestep(timestep), schedule.mix_of_timestep(after)
    noise = output if schedule.prediction == "epsilon" else here.image * output + here.noise * x
    return (there.image / here.image) * x + (there.noise - there.image / here.image * here.noise) * noise


def _output(prediction: str, at: Level, x: Form, x0: Form) -> Form:
    """What the network gave."""
    if prediction == "epsilon":
        return (x - at.image * x0) / at.noise
    return (at.image * x - x0) / at.noise
