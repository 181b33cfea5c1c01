"""A whole run against one server: how much it can do, a stream of requests near that, and its end."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from benchmarks.soaking import ledger as book
from benchmarks.soaking.deeds import Deeds
from benchmarks.soaking.ledger import Ledger
from benchmarks.soaking.mix import MOST_STEPS
from benchmarks.soaking.process import READY_SECONDS, Held, Server, ServerFailed
from benchmarks.soaking.wire import Call, ask

CLIENTS: Final = 24
"""That ask one thing after the other, while capacity is measured: more than there are slots."""
MOST_REQUESTS: Final = 100_000
SAMPLE_SECONDS: Final = 2.0
SETTLE_SECONDS: Final = 5.0
"""Until what ended has let go of what it had."""
RELOAD_AT: Final = (1 / 3, 2 / 3)
"""Of the time."""
LAST_REQUESTS: Final = 6
"""Under way when the server is told to end."""
_ENDED = re.compile(r'^sdxl_trt_requests_total\{outcome="(\w+)"\} ([\d.e+]+)$', re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is."""

    seconds: float
    seed: int
    load: float
    """Of the capacity: by requests that take work; malformed ones come on top."""
    cancelled: float
    """Probability that a request is cancelled; the next ones are of the other deeds."""
    cut: float
    broken: float
    late: float
    again: float


@dataclass(kw_only=True)
class Found:
    """What was seen."""

    deeds: Deeds
    capacity: float = 0.0
    """Requests per second."""
    rate: float = 0.0
    """That were sent."""
    held: list[Held] = field(default_factory=list)
    """While the stream went."""
    reloads: list[tuple[float, float]] = field(default_factory=list)
    """When they began and ended, by `time.monotonic`."""
    idle: list[Held] = field(default_factory=list)
    """Before the stream and after it, with nothing to do."""
    ended: dict[str, int] = field(default_factory=dict)
    """Requests that the server took, by how it says that they ended."""
    answered: int = 0
    """Requests that got their pictures, until it said so."""
    left: int = 0
    """Requests that it still had when all were answered."""
    status: int | None = None
    """That it ended with."""
    ending: float = 0.0
    """Seconds that took."""


async def soak(server: Server, plan: Plan) -> Found:
    """All of it.

    Raises:
        ServerFailed: the server does not start, load or end; while the stream goes, in an ExceptionGroup.
        OSError: it is gone; the same.
    """
    await server.wait_ready()
    found = Found(deeds=Deeds(server.port, Ledger(), Random(plan.seed)))
    found.capacity = await capacity(found.deeds, max(10.0, plan.seconds / 15))
    found.rate = plan.load * found.capacity / (1 - plan.broken)
    found.deeds.seconds.clear()  # of the stream alone
    await _settle(server, found)
    async with asyncio.TaskGroup() as beside:
        sampling = beside.create_task(_sample(server, found.held))
        beside.create_task(_reload_twice(server.port, plan.seconds, found.reloads))
        await stream(found.deeds, found.rate, plan, Random(plan.seed + 1))
        sampling.cancel()
    await _settle(server, found)
    found.left = await _waiting(server.port)
    await _account(server.port, found)
    await _end(server, found)
    found.deeds.ledger.close()
    return found


async def capacity(deeds: Deeds, seconds: float) -> float:
    """Requests per second where there are always some: of the second half of the time, or until the last is answered.

    Args:
        deeds: for one server.
        seconds: for which requests are begun.
    """
    began, ends = time.monotonic(), list[float]()

    async def client() -> None:
        while time.monotonic() < began + seconds:
            await deeds.plain()
            ends.append(time.monotonic())

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    half = began + seconds / 2
    counted = sum(half <= end < began + seconds for end in ends)
    return max(1, counted) / (seconds / 2)


async def stream(deeds: Deeds, rate: float, plan: Plan, random: Random) -> None:
    """Requests that come at random, whether earlier ones are done or not; returns when all have ended.

    Args:
        deeds: for one server.
        rate: of requests per second.
        plan: says for how long, and what is done to them.
        random: of when, and what.
    """
    kinds: dict[Callable[[], Awaitable[None]], float] = {
        deeds.cancelled: plan.cancelled,
        deeds.cut: plan.cut,
        deeds.broken: plan.broken,
        deeds.late: plan.late,
        deeds.again: plan.again,
    }
    choices, weights = [*kinds, deeds.plain], [*kinds.values(), 1 - sum(kinds.values())]
    async with asyncio.TaskGroup() as under_way:
        began = at = time.monotonic()
        for _ in range(MOST_REQUESTS):
            at += random.expovariate(rate)
            if at > began + plan.seconds:
                return
            await asyncio.sleep(at - time.monotonic())
            under_way.create_task(_done(random.choices(choices, weights)[0]()))


async def _done(deed: Awaitable[None]) -> None:
    await deed


async def _settle(server: Server, found: Found) -> None:
    await asyncio.sleep(SETTLE_SECONDS)
    found.idle.append(server.held())


async def _sample(server: Server, held: list[Held]) -> None:
    while True:
        held.append(server.held())
        await asyncio.sleep(SAMPLE_SECONDS)


async def _reload_twice(port: int, seconds: float, reloads: list[tuple[float, float]]) -> None:
    started = time.monotonic()
    for part in RELOAD_AT:
        await asyncio.sleep(started + part * seconds - time.monotonic())
        began = time.monotonic()
        answer = await ask(port, Call(method="POST", path="/admin/reload?wait=true"))
        if answer.status != 200:
            raise ServerFailed(f"it does not load its bundle again: {answer.status} {answer.body!r}")
        reloads.append((began, time.monotonic()))


async def _account(port: int, found: Found) -> None:
    text = (await ask(port, Call(method="GET", path="/metrics"))).body.decode()
    found.ended = {outcome: int(float(count)) for outcome, count in _ENDED.findall(text)}
    found.answered = found.deeds.ledger.ended(book.ANSWERED)


async def _waiting(port: int) -> int:
    queue = (await ask(port, Call(method="GET", path="/admin/queue"))).json()
    return len(queue["requests"])


async def _end(server: Server, found: Found) -> None:
    """Have it end while it has requests: it must answer them."""
    last = [asyncio.create_task(found.deeds.plain(book.LAST, steps=MOST_STEPS)) for _ in range(LAST_REQUESTS)]
    async with asyncio.timeout(READY_SECONDS):
        while await _waiting(server.port) + sum(task.done() for task in last) < LAST_REQUESTS:
            await asyncio.sleep(0.01)
    found.status, found.ending = await asyncio.to_thread(server.stop)
    await asyncio.gather(*last)
