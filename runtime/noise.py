"""Starting noise: torch's CPU random generator, reproduced without torch.

The same seed gives the same picture as `torch.Generator("cpu").manual_seed(seed)` does in diffusers, on any engine.

Sources: Matsumoto & Nishimura, "Mersenne Twister", ACM TOMACS 8(1), 1998; Box & Muller, "A Note on the
Generation of Random Normal Deviates", Ann. Math. Statist. 29(2), 1958; and torch 2.13, whose order of draws this
follows, under aten/src/ATen: core/MT19937RNGEngine.h (seeding), CPUGeneratorImpl.cpp (`random64`, the kept
sample), core/TransformationHelper.h (`uniform_real`), core/DistributionsHelper.h (`normal_distribution`) and
native/cpu/DistributionTemplates.h (`normal_kernel`, `normal_fill`, `NormalFill16`).
"""

from __future__ import annotations

import math
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import UsageError

_BLOCK = 16  # torch transforms this many uniforms at a time; smaller draws go another way
_CHUNK = 4096 * _BLOCK  # words in hand at once: larger arrays cost new pages from the system at every draw
_FLOAT_BITS, _DOUBLE_BITS = 24, 53  # digits of a float32 and of a float64: how many random bits a uniform has
_TWO_PI = np.float32(2 * math.pi)


class TorchGenerator:
    """The stream of standard normal numbers of `torch.Generator("cpu").manual_seed(seed)`.

    Like torch's, it has a state: every draw continues where the last one ended, and how a number of elements is
    split into draws changes what comes out. Give each image its own.

    Args:
        seed: −2⁶³ … 2⁶⁴ − 1, as torch takes it (negative: two's complement). Torch's engine reads the low 32
            bits only, so seeds that are equal in these give equal noise.

    Raises:
        UsageError: the seed is no integer, or outside this range.
    """

    def __init__(self, seed: int) -> None:
        # RandomState, since numpy has frozen its stream for good (NEP 19), which it has not for Generator.
        self._twister = np.random.RandomState(_checked(seed) & 0xFFFFFFFF)
        self._kept: float | None = None  # second half of a pair; lives until the next small draw takes it

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Draw what `torch.randn(shape, generator=generator, dtype=torch.float32)` would draw next.

        Args:
            shape: of the result; `()` is one number, and an empty shape such as `(0, 4)` draws nothing.

        Returns:
            float32 of this shape, C-contiguous, within 1e-6 of torch's (torch's vectorised logarithm and cosine
            are not numpy's: tried over all 2²⁴ radii and all 2²⁴ angles, each is off by 4.8e-7 at most).
        """
        out = np.empty(shape, np.float32)
        flat = out.reshape(-1)
        if out.size < _BLOCK:
            flat[:] = [self._next_double() for _ in range(out.size)]
        else:
            self._fill(flat)
        return out

    def _fill(self, out: NDArray[np.float32]) -> None:
        """Write a draw of 16 elements or more, float32 `[n]`."""
        ragged = out.size % _BLOCK
        whole = out.size - ragged
        for start in range(0, whole, _CHUNK):
            part = out[start : min(start + _CHUNK, whole)]
            part[:] = _box_muller(self._words(part.size))
        if ragged:  # the words of the ragged end are dropped: 16 more give the last 16 elements anew
            out[-_BLOCK:] = _box_muller(self._words(ragged + _BLOCK)[ragged:])

    def _next_double(self) -> float:
        """One number of a draw of fewer than 16 elements: float64, made in pairs."""
        if self._kept is not None:
            sample, self._kept = self._kept, None
            return sample
        words = self._words(4).tolist()
        theta = 2 * math.pi * _uniform_double(*words[:2])
        radius = math.sqrt(-2 * math.log1p(-_uniform_double(*words[2:])))
        self._kept = radius * math.sin(theta)
        return radius * math.cos(theta)

    def _words(self, count: int) -> NDArray[np.uint32]:
        """The next raw outputs of the Mersenne twister; over its full range randint passes them on as they are."""
        return self._twister.randint(0, 1 << 32, count, dtype=np.uint32)


def _box_muller(words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Normal numbers from raw words, `[16·b]` both; of each 16 words 8 give the radius, 8 the angle."""
    bits = words.reshape(-1, 2, _BLOCK // 2) & np.uint32((1 << _FLOAT_BITS) - 1)
    uniform = bits.swapaxes(0, 1).astype(np.float32, order="C")
    uniform *= np.float32(2**-_FLOAT_BITS)
    radius = np.sqrt(np.float32(-2) * np.log(1 - uniform[0]))
    theta = _TWO_PI * uniform[1]  # must round to float32 as in torch: an exact angle is off by up to 2.9e-6
    out = np.empty(bits.shape, np.float32)
    np.multiply(radius, np.cos(theta), out=out[:, 0])
    np.multiply(radius, np.sin(theta), out=out[:, 1])
    return out.reshape(-1)


def _uniform_double(high: int, low: int) -> float:
    """A float64 in [0, 1) from the low 53 bits of two words."""
    return math.ldexp((high << 32 | low) & ((1 << _DOUBLE_BITS) - 1), -_DOUBLE_BITS)


def _checked(seed: int) -> int:
    is_integer = isinstance(seed, Integral) and not isinstance(seed, bool)
    if is_integer and -(2**63) <= seed < 2**64:
        return int(seed)
    # Python refuses to print an integer of more than some thousand digits.
    is_long = is_integer and int(seed).bit_length() > 256
    raise UsageError(
        "this seed cannot be used",
        got=f"an integer of {int(seed).bit_length()} bits" if is_long else f"{seed!r} ({type(seed).__name__})",
        expected="an integer from -2**63 to 2**64 - 1",
        fix="choose a seed in this range, such as 0; torch uses only its low 32 bits",
    )
