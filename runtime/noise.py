"""Noise: torch's random generators, reproduced without torch; that of its CPU and that of CUDA devices.

The same seed gives the same picture as `torch.Generator("cpu").manual_seed(seed)` does in diffusers, on any engine.

Sources: Matsumoto & Nishimura, "Mersenne Twister", ACM TOMACS 8(1), 1998; Box & Muller, "A Note on the
Generation of Random Normal Deviates", Ann. Math. Statist. 29(2), 1958; and torch 2.13, whose order of draws this
follows, under aten/src/ATen: core/MT19937RNGEngine.h (seeding), CPUGeneratorImpl.cpp (`random64`, the kept
sample), core/TransformationHelper.h (`uniform_real`), core/DistributionsHelper.h (`normal_distribution`) and
native/cpu/DistributionTemplates.h (`normal_kernel`, `normal_fill`, `NormalFill16`). For CUDA: Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3", SC 2011; cuRAND's curand_normal4; and native/cuda/DistributionTemplates.h, for
which thread makes which element. Never compared with a GPU, but with published numbers (AUTOMATIC1111's rng_philox.py).
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

_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
_WEYL = np.array([0x9E3779B9, 0xBB67AE85], np.uint32)
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_UNIT = np.float32(2**-32)
_TURN = np.float32(2**-32 * 2 * np.pi)
_PER_COUNTER = 4  # numbers that one counter gives


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


class PhiloxGenerator:
    """The stream of standard normal numbers of `torch.Generator("cuda").manual_seed(seed)`.

    A draw starts one thread for each element, but no more than the GPU holds at a time; further elements are the
    threads' second, third and fourth numbers, then their next counter's. So the numbers depend on the GPU where a draw
    has more elements than it has resident threads (SMs × threads per SM: 43,008 on an RTX 3060, 196,608 on a 4090,
    221,184 on an A100), and on nothing else of it.

    Args:
        seed: −2⁶³ … 2⁶⁴ − 1, as torch takes it; all 64 bits count.
        threads: resident threads of the GPU, a multiple of 256; None: as many as any draw has elements, which
            is so for SDXL at 1024² (65,536 elements) on GPUs with more than 42 SMs.

    Raises:
        UsageError: the seed is no integer, or outside this range.
    """

    def __init__(self, seed: int, *, threads: int | None = None) -> None:
        seed = _checked(seed) & 0xFFFFFFFFFFFFFFFF
        self._key = np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32)
        self._threads = threads
        self._counter = 0  # blocks of four numbers that every thread has used

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Draw what `torch.randn(shape, generator=generator, device="cuda", dtype=torch.float32)` would draw next.

        Args:
            shape: of the result.

        Returns:
            float32 of this shape, C-contiguous, within about 1e-6 of CUDA's (whose sine is an approximation).
        """
        size = int(np.prod(shape, dtype=np.int64))
        if size == 0:
            return np.empty(shape, np.float32)
        threads = -(-size // 256) * 256 if self._threads is None else min(self._threads, -(-size // 256) * 256)
        counters = -(-size // (threads * _PER_COUNTER))
        element = np.arange(size)
        round_of, within = np.divmod(element, threads * _PER_COUNTER)
        component, thread = np.divmod(within, threads)
        words = _philox(self._key, counter=self._counter + round_of, stream=thread)
        self._counter += counters
        pair = component // 2 * 2
        first, second = words[pair, element], words[pair + 1, element]
        return _curand_normal(first, second, component % 2 == 1).reshape(shape)


def _philox(key: NDArray[np.uint32], *, counter: NDArray[np.int64], stream: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Philox 4×32-10: four words [4, n] for each counter and stream, [n] both and 64 bits wide."""
    key = key.copy()
    block = np.stack([half for wide in (counter, stream) for half in _halves(wide.astype(np.uint64))])
    for _ in range(_ROUNDS):
        high_0, low_0 = _halves(block[0] * _MULTIPLIERS[0])[::-1]
        high_1, low_1 = _halves(block[2] * _MULTIPLIERS[1])[::-1]
        block = np.stack([high_1 ^ block[1] ^ key[0], low_1, high_0 ^ block[3] ^ key[1], low_0])
        key += _WEYL
    return block.astype(np.uint32)


def _halves(wide: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Low and high 32 bits."""
    return wide & _LOW, wide >> np.uint64(32)


def _curand_normal(
    first: NDArray[np.uint32], second: NDArray[np.uint32], cosine: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Normal numbers from two words each: cuRAND's, the sine or the cosine of the pair."""
    radius = np.sqrt(np.float32(-2) * np.log(first.astype(np.float32) * _UNIT + _UNIT / 2))
    angle = second.astype(np.float32) * _TURN + _TURN / 2
    normal: NDArray[np.float32] = radius * np.where(cosine, np.cos(angle), np.sin(angle))
    return normal


def _checked(seed: int) -> int:
    """The seed as a Python integer, if torch would take it.

    Raises:
        UsageError: it is no integer, or outside −2⁶³ … 2⁶⁴ − 1.
    """
    is_integer = isinstance(seed, Integral) and not isinstance(seed, bool)
    if is_integer and -(2**63) <= seed < 2**64:
        return int(seed)
    # Python refuses to print an integer of more than some thousand digits.
    is_long = is_integer and int(seed).bit_length() > 256
    raise UsageError(
        "this seed cannot be used",
        got=f"an integer of {int(seed).bit_length()} bits" if is_long else f"{seed!r} ({type(seed).__name__})",
        expected="an integer from -2**63 to 2**64 - 1",
        fix="choose a seed in this range, such as 0",
    )


RNGS = {"cpu": TorchGenerator, "cuda": PhiloxGenerator}
"""Generators by the torch device that they reproduce."""
