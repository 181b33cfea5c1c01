"""Tables: a sampler's recurrence, run once on symbols, becomes the numbers that the step graph multiplies by.

A recurrence is written as the paper writes it, with `Form`s in place of latents, and a `Tape` in place of the network:

    x, *history, x0 = tape.evaluate(x, *history, at=level)

is one UNet evaluation at the sample x. What it returns is all there is afterwards: x and the history as they were
passed, which is what the state holds, and the clean sample x̂₀ as the network sees it. Everything else is arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.levels import CLEAN, NOISE, Level, Mix
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


class Brownian(NamedTuple):
    """Noise that is the increment of one Brownian path between two noise levels, brought to unit variance."""

    sigma: float
    sigma_next: float


class BrownianRange(NamedTuple):
    """The noise levels between which a table's Brownian path runs, and what it is seeded with."""

    lowest: float
    highest: float
    seed: int | None
    """None: another path for every picture."""


Noise = Literal["fresh"] | Brownian | None
"""What an evaluation adds: one standard normal draw of the picture's generator, a Brownian increment, or nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A sampler as numbers: one column per UNet evaluation."""

    columns: NDArray[np.float32]
    """[evaluations, COLUMN_WIDTH], fields as in `sdxl_trt.spec.Column`, read-only. guidance and rescale are 0: they
    are a request's, set in a copy."""
    noises: tuple[Noise, ...]
    """The noise that each evaluation adds. A draw is made even where its factor is 0, as diffusers does."""
    initial_scale: float
    """Factor of standard normal noise in the starting sample."""
    steps: int
    """Steps of the sampler that it does, the last perhaps in part (`ends`)."""
    initial_image: float = 0.0
    """Factor of the given image (or another model's result) in the starting sample; 0: the start is noise alone."""
    begins: Mix = NOISE
    """Level of the first evaluation: what a result handed over from another model is scaled to."""
    ends: Mix = CLEAN
    """Level of the result; not clean where `denoising_end` leaves the rest to another model."""
    brownian: BrownianRange | None = None
    """Of the path that Brownian increments come from."""

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
        self._levels: list[Mix] = []
        self._noises: list[Noise] = []
        self._brownian: BrownianRange | None = None

    @property
    def start(self) -> Form:
        """The starting sample: what the first evaluation is of."""
        return _unit(0, 0)

    def evaluate(self, x: Form, *kept: Form, at: Level, blend: Level | None = None) -> tuple[Form, ...]:
        """Evaluate the network at the sample `x`.

        Args:
            x: the current sample; z₀ from here on.
            *kept: what is needed afterwards beside it; z₁, z₂, … from here on.
            at: the noise level of `x`.
            blend: the level to which inpainting brings the image before it is blended with `x`, if not `at`.

        Returns:
            x and `kept` in the new terms, then x̂₀.
        """
        if self._columns:
            blend = blend or at
            self._close((x, *kept), blend.image, blend.noise)
        elif kept or not np.array_equal(x.coefficients, self.start.coefficients):
            raise ValueError("the first evaluation is of the starting sample alone")
        column = np.zeros(COLUMN_WIDTH)
        column[Column.timestep] = at.timestep
        column[Column.input.start] = at.scale
        column[Column.x0_input] = at.x0_input
        column[Column.x0_output] = at.x0_output
        self._columns.append(column)
        self._levels.append(Mix(at.image, at.noise))
        self._noises.append(None)
        now = len(self._columns)
        state = [_unit(k, now) for k in range(1 + len(kept))]
        return (*state, at.x0_input * at.scale * state[0] + at.x0_output * _unit(_OUTPUT, now))

    def noise(self) -> Form:
        """The fresh standard normal noise of this evaluation; there is one."""
        return self._add_noise("fresh")

    def brownian(self, sigma: float, sigma_next: float, within: BrownianRange) -> Form:
        """The same, from one Brownian path: its increment from `sigma` to `sigma_next`, of unit variance."""
        self._brownian = within
        return self._add_noise(Brownian(sigma, sigma_next))

    @property
    def timesteps(self) -> tuple[float, ...]:
        """What the network was told so far, one for each evaluation."""
        return tuple(float(column[Column.timestep][0]) for column in self._columns)

    @property
    def first_level(self) -> Mix:
        """The level of the first evaluation."""
        return self._levels[0]

    def table(
        self,
        final: Form,
        *,
        initial_scale: float,
        steps: int,
        initial_image: float = 0.0,
        evaluations: int | None = None,
    ) -> Table:
        """The table of a recurrence that ends with the sample `final`, which is clean.

        Args:
            final: what the recurrence returned.
            initial_scale: of noise in the starting sample.
            steps: that it does.
            initial_image: of the image in the starting sample.
            evaluations: how many are done, if not all; the result then is at the level of the next one. Inpainting
                takes the image as it is after the last one all the same, as diffusers' pipeline does.
        """
        count = len(self._columns) if evaluations is None else evaluations
        self._close((final,), *CLEAN)
        columns = np.stack(self._columns).astype(np.float32)[:count]
        columns[-1, Column.blend_image], columns[-1, Column.blend_noise] = CLEAN
        columns.setflags(write=False)
        return Table(
            columns=columns,
            noises=tuple(self._noises[:count]),
            initial_scale=initial_scale,
            steps=steps,
            initial_image=initial_image,
            begins=self.first_level,
            ends=self._levels[count] if count < len(self._levels) else CLEAN,
            brownian=self._brownian,
        )

    def _add_noise(self, noise: Noise) -> Form:
        if not self._noises or self._noises[-1] is not None:
            raise ValueError("an evaluation has one noise, and there is none before the first")
        self._noises[-1] = noise
        return _unit(_NOISE, len(self._columns))

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
