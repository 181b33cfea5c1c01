"""Everything that the first request of a shape would wait for, done before it comes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime.checks import Pair, check_integer, check_pair
from sdxl_trt.runtime.expert import Expert
from sdxl_trt.spec import LATENT_SCALE

Shape = tuple[Pair, int]
"""Size (width, height) in pixels, and the pictures of a request."""


def warm_up(
    experts: Sequence[Expert], sizes: Iterable[Pair], batches: Iterable[int], chunks: Iterable[int]
) -> dict[Shape, float]:
    """Bind, compile, record and run each shape once; see `Pipeline.warm_up`."""
    shapes = list(itertools.product(*_check(experts[0], sizes, batches, chunks)))
    seconds = dict.fromkeys(((size, batch) for size, batch, _ in shapes), 0.0)
    started = time.perf_counter()
    for expert in experts:
        expert.condition.warm_up()
        expert.vae.preview_factors()
    for size, batch, count in shapes:
        width, height = (edge // LATENT_SCALE for edge in size)
        for expert in experts:
            expert.warm_up(batch, height, width, count * expert.model.text_encoders[0].tokens)
        for vae in dict.fromkeys(expert.vae for expert in experts):  # two models may share one
            vae.warm_up(height, width)
        now = time.perf_counter()
        seconds[size, batch] += now - started
        started = now
    return seconds


def _check(
    expert: Expert, sizes: Iterable[Pair], batches: Iterable[int], chunks: Iterable[int]
) -> tuple[list[Pair], list[int], list[int]]:
    profile, each = expert.profile, expert.model.text_encoders[0].tokens
    pairs = [check_pair("sizes", size, least=1) for size in sizes]
    for pair in pairs:
        profile.check_size(pair)
    numbers = [check_integer("batches", batch, least=1) for batch in batches]
    counts = [check_integer("chunks", count, least=1) for count in chunks]
    for count in counts:
        if not profile.tokens.min <= count * each <= profile.tokens.max:
            raise UsageError(
                "chunks cannot be used",
                got=f"{count} chunks of {each} tokens",
                expected=f"{profile.tokens.min} to {profile.tokens.max} tokens, which the engines were built for",
                fix="leave it out, or build the bundle again with --prompt-chunks",
            )
    return pairs, numbers, counts
