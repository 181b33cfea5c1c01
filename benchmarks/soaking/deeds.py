"""One request each, and what is done to it: asked and waited for, cancelled, cut off, malformed, or with no time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any, Final

from benchmarks.soaking import ledger as book
from benchmarks.soaking.hostile import broken
from benchmarks.soaking.judging import NEAR, Twice, Wrong, difference, judge
from benchmarks.soaking.ledger import Ledger
from benchmarks.soaking.mix import OPENAI, Wish, wish
from benchmarks.soaking.wire import Answer, BadAnswer, Call, ask, connect

PATIENCE: Final = 600.0
"""Seconds after which a request is lost."""
LONGEST_WAIT: Final = 3.0
"""Seconds at most before somebody cancels, or goes away."""
DEADLINES: Final = (0.01, 1.0)
"""Seconds, where they are too short."""
HEAD, BODY, WAITING, STREAM = "in the head", "in the body", "while it waits", "in the stream"
"""Where connections are cut."""
MOST_KNOWN: Final = 32


class Deeds:
    """What is done to requests of one server, and written into a ledger.

    Args:
        port: of the server.
        ledger: that is written into.
        random: of all chance.
    """

    def __init__(self, port: int, ledger: Ledger, random: Random) -> None:
        self.ledger = ledger
        self._port, self._random = port, random
        self._numbers = 0
        self._known = list[tuple[Wish, list[bytes]]]()
        """Answers that are compared with those that come when they are asked for again."""
        self.seconds = list[float]()
        """That plain requests took."""
        self.alike = Counter[str]()
        """Pictures that were asked for again, by how much they are as they were."""
        self.variety = Counter[str]()
        """Malformed requests by their kinds, and cut ones by where."""

    async def plain(self, deed: str = book.PLAIN, **fixed: Any) -> None:
        """Ask, and wait for what comes.

        Args:
            deed: as the ledger has it.
            fixed: fields of the wish that are not left to chance.
        """
        asked, began = wish(self._random, self._number(deed), **fixed), time.monotonic()
        files = await self._asked(asked)
        if files:
            self.seconds.append(time.monotonic() - began)
            if asked.kind == "png" and len(self._known) < MOST_KNOWN:
                self._known.append((asked, files))

    async def again(self) -> None:
        """Ask once more for what was answered before, where there is something: it must be the same."""
        if not self._known:
            return await self.plain()
        earlier, files = self._known.pop(self._random.randrange(len(self._known)))
        asked = replace(earlier, number=self._number(book.AGAIN))
        for one, other in zip(files, await self._asked(asked), strict=False):
            levels = difference(one, other)
            self.alike["byte for byte" if one == other else f"by {levels} levels of 255"] += 1
            if levels > NEAR:
                self.ledger.fault(asked.number, book.WRONG, f"{levels} levels from what {earlier.id} gave: {asked}")
        return None

    async def cancelled(self) -> None:
        """Ask, and have an operator take it back after a while."""
        asked = wish(self._random, self._number(book.CANCELLED))
        waiting = asyncio.create_task(self._asked(asked))
        await asyncio.sleep(self._random.uniform(0, LONGEST_WAIT))
        with contextlib.suppress(OSError, BadAnswer):  # it is the request's own answer that counts
            await ask(self._port, Call(method="DELETE", path=f"/admin/requests/{asked.id}"))
        await waiting

    async def late(self) -> None:
        """Ask for more than there is time for."""
        more = {"deadline": self._random.uniform(*DEADLINES)}
        await self._asked(wish(self._random, self._number(book.LATE), api=OPENAI, more=more))

    async def cut(self) -> None:
        """Begin to ask, and go away."""
        stage = self._random.choice((HEAD, BODY, WAITING, STREAM))
        fixed: dict[str, Any] = {"api": OPENAI, "stream": True, "partials": 3} if stage == STREAM else {}
        number = self._number(book.CUT)
        data = wish(self._random, number, **fixed).call().encode()
        head = data.index(b"\r\n\r\n")
        length = {HEAD: self._random.randrange(head), BODY: self._random.randrange(head, len(data))}.get(stage)
        self.variety[f"cut {stage}"] += 1
        try:
            async with asyncio.timeout(PATIENCE):
                await self._leave(data[:length], streams=stage == STREAM)
        except (BadAnswer, OSError, TimeoutError) as error:
            self.ledger.end(number, book.LOST, f"cut {stage}: {error!r}")
        else:
            self.ledger.end(number, book.LEFT)

    async def broken(self) -> None:
        """Ask for what cannot be."""
        number = self._number(book.BROKEN)
        kind, data = broken(self._random, number)
        self.variety[kind] += 1
        try:
            answer = await self._exchange(data)
        except (BadAnswer, OSError, TimeoutError) as error:
            self.ledger.end(number, book.LOST, f"{kind}: {error!r}")
        else:
            end = book.REJECTED if 400 <= answer.status < 500 else book.WRONG
            self.ledger.end(number, end, f"{kind}: {answer.status} {answer.body[:300]!r}")

    async def _asked(self, asked: Wish) -> list[bytes]:
        """Ask, wait, and write down the end. Returns the pictures, where there are any."""
        try:
            end, files = judge(asked, await self._exchange(asked.call().encode()))
        except Twice as error:
            end, files, what = book.DUPLICATED, [], str(error)
        except Wrong as error:
            end, files, what = book.WRONG, [], str(error)
        except (BadAnswer, OSError, TimeoutError) as error:
            end, files, what = book.LOST, [], repr(error)
        else:
            what = ""
        self.ledger.end(asked.number, end, f"{what} {asked}")
        return files

    async def _leave(self, data: bytes, *, streams: bool) -> None:
        """Send, stay for a while, or until something comes of a stream, and go away."""
        wire = await connect(self._port)
        await wire.send(data)
        seconds = self._random.uniform(0, LONGEST_WAIT)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(wire.head() if streams else asyncio.sleep(seconds), LONGEST_WAIT)
        wire.cut(rudely=self._random.random() < 0.5)

    async def _exchange(self, data: bytes) -> Answer:
        async with asyncio.timeout(PATIENCE):
            wire = await connect(self._port)
            try:
                await wire.send(data)
                return await wire.answer()
            finally:
                wire.close()

    def _number(self, deed: str) -> int:
        self._numbers += 1
        self.ledger.send(self._numbers, deed)
        return self._numbers
