"""Tables: a sampler's recurrence, run once on symbols, becomes the numbers that the step graph multiplies by.

A recurrence is written as the paper writes it, with `Form`s in place of latents, and a `Tape` in place of the network:

    x, *history, x0 = tape.evaluate(x, *history, at=level)

is one UNet evaluation at the sample x. What it returns is all there is afterwards: x and the history as they were
passed, which is what the state holds, and the clean sample x̂₀ as the network sees it. Everything else is arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.schedule import Prediction
from sdxl_trt.spec import COLUMN_WIDTH, HISTORY, Column

_OUTPUT, _NOISE, _BASIS = HISTORY, HISTORY + 1, HISTORY + 2


@dataclass(frozen=True, eq=False)
class Form:
    """A latent to be, as a linear combination of what one evaluation has at hand."""

    coefficients: NDArray[np.float64]
    """[HISTORY + 2]: of z₀ … z_{K−1}, of the network's output ε, of the fresh noise n."""
    evaluation: int
    """Number of the evaluation in whose terms it is written, from 1; 0 before the first."""

    __array_ufunc__: ClassVar[None] = None  # else numpy's scalars would take `scalar * form` for themselves

    def __add__(self, other: Form) -> Form:
        if self.evaluation != other.evaluation:
            raise ValueError(
                f"forms of evaluations {self.evaluation} and {other.evaluation} in one sum: "
                "what is needed after an evaluation must be passed to it"
            )
        return Form(self.coefficients + other.coefficients, self.evaluation)

    def __mul__(self, factor: float) -> Form:
        return Form(self.coefficients * factor, self.evaluation)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Form:
        return Form(self.coefficients / divisor, self.evaluation)

    def __sub__(self, other: Form) -> Form:
        return self + other * -1.0


@dataclass(frozen=True, kw_only=True)
class Level:
    """A noise level, x = image · x₀ + noise · n, and how the network denoises there.

    The network sees scale · x and the timestep; then x̂₀ = x0_input · (scale · x) + x0_output · ε. In the terms of
    Karras et al. 2022 (arXiv 2206.00364), equation 7: c_in = scale, c_skip = x0_input · scale, c_out = x0_output.
    """

    timestep: float
    image: float
    noise: float
    scale: float
    x0_input: float
    x0_output: float

    @classmethod
    def make(cls, prediction: Prediction, *, timestep: float, image: float, noise: float) -> Level:
        """The level of a network trained on u = α · x₀ + σ · n with α² + σ² = 1.

        epsilon: x₀ = (u − σ · ε)/α. v_prediction: x₀ = α · u − σ · v. sample: x₀ is the output itself.
        """
        scale = 1 / math.hypot(image, noise)
        alpha, sigma = image * scale, noise * scale
        if prediction == "epsilon":
            x0_input, x0_output = 1 / alpha, -sigma / alpha
        elif prediction == "v_prediction":
            x0_input, x0_output = alpha, -sigma
        else:
            x0_input, x0_output = 0.0, 1.0
        return cls(timestep=timestep, image=image, noise=noise, scale=scale, x0_input=x0_input, x0_output=x0_output)


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A sampler as numbers: one column per UNet evaluation."""

    columns: NDArray[np.float32]
    """[evaluations, COLUMN_WIDTH], fields as in `sdxl_trt.spec.Column`, read-only. guidance and rescale are 0: they
    are a request's, set in a copy."""
    noises: tuple[bool, ...]
    """Whether each evaluation takes fresh noise."""
    initial_scale: float
    """Factor from standard normal noise to the starting sample."""
    steps: int

    @property
    def evaluations(self) -> int:
        """UNet evaluations; more than `steps` where a sampler needs several per step."""
        return len(self.columns)


class Tape:
    """Records the evaluations that a recurrence asks for, and gives the table.

    A misuse (a form kept past its evaluation, too many of them) is a mistake in the recurrence: ValueError.
    """

    def __init__(self) -> None:
        self._columns: list[NDArray[np.float64]] = []
        self._noises: list[bool] = []

    @property
    def start(self) -> Form:
        """The starting sample: what the first evaluation is of."""
        return _unit(0, 0)

    def evaluate(self, x: Form, *kept: Form, at: Level) -> tuple[Form, ...]:
        """Evaluate the network at the sample `x`.

        Args:
            x: the current sample; z₀ from here on.
            *kept: what is needed afterwards beside it; z₁, z₂, … from here on.
            at: the noise level of `x`. Inpainting blends x with the image at this level.

        Returns:
            x and `kept` in the new terms, then x̂₀.
        """
        if self._columns:
            self._close((x, *kept), at.image, at.noise)
        elif kept or not np.array_equal(x.coefficients, self.start.coefficients):
            raise ValueError("the first evaluation is of the starting sample alone")
        column = np.zeros(COLUMN_WIDTH)
        column[Column.timestep] = at.timestep
        column[Column.input.start] = at.scale
        column[Column.x0_input] = at.x0_input
        column[Column.x0_output] = at.x0_output
        self._columns.append(column)
        self._noises.append(False)
        now = len(self._columns)
        state = [_unit(k, now) for k in range(1 + len(kept))]
        return (*state, at.x0_input * at.scale * state[0] + at.x0_output * _unit(_OUTPUT, now))

    def noise(self) -> Form:
        """The fresh standard normal noise of this evaluation; there is one."""
        if not self._noises or self._noises[-1]:
            raise ValueError("an evaluation has one fresh noise, and there is none before the first")
        self._noises[-1] = True
        return _unit(_NOISE, len(self._columns))

    def table(self, final: Form, *, initial_scale: float, steps: int) -> Table:
        """The table of a recurrence that ends with the sample `final`, which is clean."""
        self._close((final,), 1.0, 0.0)
        columns = np.stack(self._columns).astype(np.float32)
        columns.setflags(write=False)
        return Table(columns=columns, noises=tuple(self._noises), initial_scale=initial_scale, steps=steps)

    def _close(self, state: tuple[Form, ...], image: float, noise: float) -> None:
        """Write into the last column how `state` comes about, and the level to which inpainting blends it."""
        now = len(self._columns)
        if len(state) > HISTORY:
            raise ValueError(f"{len(state)} latents after evaluation {now}, and a state holds {HISTORY}")
        if any(form.evaluation != now for form in state):
            raise ValueError(f"a form from before evaluation {now} was not passed to it")
        rows = np.zeros((HISTORY, _BASIS))
        rows[: len(state)] = [form.coefficients for form in state]
        column = self._columns[-1]
        column[Column.transition] = rows[:, :HISTORY].ravel()
        column[Column.output] = rows[:, _OUTPUT]
        column[Column.noise] = rows[:, _NOISE]
        column[Column.blend_image] = image
        column[Column.blend_noise] = noise


def _unit(index: int, evaluation: int) -> Form:
    return Form(np.eye(_BASIS)[index], evaluation)
