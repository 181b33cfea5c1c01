"""The soak sees a lost, a second and a wrong answer, and memory that grows; and nothing where all is well."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import numpy as np
import pytest

from benchmarks.soaking import ledger as book
from benchmarks.soaking.deeds import Deeds
from benchmarks.soaking.hostile import KINDS
from benchmarks.soaking.judging import Twice, Wrong, difference, judge
from benchmarks.soaking.ledger import Ledger
from benchmarks.soaking.mix import OPENAI, TEXT, Wish, wish
from benchmarks.soaking.process import Held
from benchmarks.soaking.run import Found, Plan
from benchmarks.soaking.slope import fit
from benchmarks.soaking.verdict import report
from benchmarks.soaking.wire import Answer, Head
from sdxl_trt.runtime.png import Parameters, encode_png

PLAIN = {"api": OPENAI, "task": TEXT, "kind": "png", "stream": False, "count": 2}
Reply = Callable[[str, dict[str, Any]], bytes]
"""From a request's id and its fields, all bytes of an answer."""


def file_of(prompt: str, steps: int, seed: int, size: str, shade: int = 90) -> str:
    width, height = map(int, size.split("x"))
    pixels = np.full((height, width, 3), shade, np.uint8)
    settings: dict[str, Any] = {"Steps": steps, "Sampler": "Euler", "Seed": seed, "Size": size}
    return base64.b64encode(encode_png(pixels, Parameters(prompt=prompt, settings=settings))).decode()


def told(fields: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """What is right; or of another size, steps, prompt, number or shade."""
    made = {name: fields[name] for name in ("prompt", "steps", "size", "seed", "n")} | changed
    shade = made.get("shade", 90)
    data = [
        {"seed": seed, "b64_json": file_of(made["prompt"], made["steps"], seed, made["size"], shade)}
        for seed in range(made["seed"], made["seed"] + made["n"])
    ]
    return {"data": data}


def answer(name: str, body: object, status: int = 200, more: str = "") -> bytes:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\nX-Request-Id: {name}\r\n{more}\r\n"
    return head.encode() + data


@asynccontextmanager
async def answering(reply: Reply) -> AsyncIterator[int]:
    """A server that says what it is told to; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = await reader.readexactly(int(headers["Content-Length"]))
        writer.write(reply(headers["X-Request-Id"], json.loads(body)))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def asked(reply: Reply, *, times: int = 3) -> Ledger:
    """What the ledger has after some requests."""

    async def run() -> Ledger:
        ledger = Ledger()
        async with answering(reply) as port:
            deeds = Deeds(port, ledger, Random(0))
            for _ in range(times):
                await deeds.plain(**PLAIN)
        ledger.close()
        return ledger

    return asyncio.run(run())


def test_what_is_right_is_answered() -> None:
    ledger = asked(lambda name, fields: answer(name, told(fields)))
    assert ledger.counts() == {book.PLAIN: {book.ANSWERED: 3}}
    assert ledger.faults == []


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (lambda name, fields: b"", book.LOST),
        (lambda name, fields: answer(name, told(fields))[:-10], book.LOST),
        (lambda name, fields: b"220 mail\r\n\r\n", book.LOST),
        (lambda name, fields: 2 * answer(name, told(fields)), book.DUPLICATED),
        (lambda name, fields: answer("soak-999", told(fields)), book.WRONG),
        (lambda name, fields: answer(name, told(fields, size="64x64")), book.WRONG),
        (lambda name, fields: answer(name, told(fields, n=1)), book.WRONG),
        (lambda name, fields: answer(name, told(fields, n=3)), book.WRONG),
        (lambda name, fields: answer(name, told(fields, seed=1)), book.WRONG),
        (lambda name, fields: answer(name, told(fields, steps=99)), book.WRONG),
        (lambda name, fields: answer(name, told(fields, prompt="a dog")), book.WRONG),
        (lambda name, fields: answer(name, {"data": []}), book.WRONG),
        (lambda name, fields: answer(name, []), book.WRONG),
        (lambda name, fields: answer(name, {}, 500), book.WRONG),
        (lambda name, fields: answer(name, {}, 503), book.WRONG),
        (lambda name, fields: answer(name, {}, 504), book.WRONG),
        (lambda name, fields: answer(name, {}, 499), book.WRONG),
        (lambda name, fields: answer(name, {}, 400), book.WRONG),
        (lambda name, fields: answer(name, {}, 429), book.WRONG),
    ],
)
def test_what_is_not_right_is_a_fault(reply: Reply, kind: str) -> None:
    ledger = asked(reply, times=1)
    assert [fault.kind for fault in ledger.faults] == [kind]


def test_a_full_queue_may_refuse_where_it_says_when_to_come_again() -> None:
    ledger = asked(lambda name, fields: answer(name, {}, 429, "Retry-After: 3\r\n"))
    assert ledger.counts() == {book.PLAIN: {book.REFUSED: 3}}
    assert ledger.faults == []


@pytest.mark.parametrize(("shade", "faults"), [(90, 0), (91, 0), (92, 2)])
def test_what_is_asked_for_again_must_be_the_same(shade: int, faults: int) -> None:
    async def run() -> Ledger:
        ledger, shades = Ledger(), iter((90, shade))
        async with answering(lambda name, fields: answer(name, told(fields, shade=next(shades)))) as port:
            deeds = Deeds(port, ledger, Random(0))
            await deeds.plain(**PLAIN)
            await deeds.again()
        return ledger

    ledger = asyncio.run(run())
    assert set(ledger.counts()) == {book.PLAIN, book.AGAIN}
    assert ledger.number_of(book.WRONG) == len(ledger.faults) == faults


def test_what_must_be_refused_and_is_not_is_a_fault() -> None:
    async def run() -> Ledger:
        ledger = Ledger()
        server = await asyncio.start_server(_takes_everything, "127.0.0.1", 0)
        async with server:
            deeds = Deeds(server.sockets[0].getsockname()[1], ledger, Random(0))
            for _ in range(5):
                await deeds.broken()
        return ledger

    assert asyncio.run(run()).number_of(book.WRONG) == 5


async def _takes_everything(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(answer("x", {}))
    writer.close()


def test_malformed_requests_are_made_of_every_kind() -> None:
    made = {name: make(Random(0), 7) for name, make in KINDS.items()}
    assert len(set(made.values())) == len(made) > 20


def streamed(asked: Wish, *said: tuple[str, int, int]) -> Answer:
    """Events: kinds, pictures, and seeds or numbers of partial ones."""
    file = file_of(asked.prompt, asked.steps, asked.seed, f"{asked.size[0]}x{asked.size[1]}")
    blocks = [
        f"event: {kind}\ndata: "
        + json.dumps({"b64_json": file, "image_index": index, "seed": number, "partial_image_index": number})
        for kind, index, number in said
    ]
    body = "".join(block + "\n\n" for block in blocks).encode()
    return Answer(head=Head(status=200, headers={"x-request-id": asked.id}), body=body)


def test_streams_have_every_picture_once_and_no_partial_one_twice() -> None:
    asked = wish(Random(0), 1, **PLAIN | {"stream": True, "partials": 2, "count": 1})
    partial, done = "image_generation.partial_image", ("image_generation.completed", 0, asked.seed)
    end, files = judge(asked, streamed(asked, (partial, 0, 0), (partial, 0, 1), done))
    assert (end, len(files)) == (book.ANSWERED, 1)
    for wrong in (((partial, 0, 0),), ((partial, 0, 2), done), ()):
        with pytest.raises(Wrong):
            judge(asked, streamed(asked, *wrong))
    for twice in ((done, done), ((partial, 0, 1), (partial, 0, 1), done)):
        with pytest.raises(Twice):
            judge(asked, streamed(asked, *twice))


def test_a_request_has_one_end_which_is_one_that_it_may_have() -> None:
    ledger = Ledger()
    for number, deed in enumerate((book.PLAIN, book.CANCELLED, book.CUT, book.LAST)):
        ledger.send(number, deed)
    ledger.end(0, book.ANSWERED)
    ledger.end(0, book.ANSWERED)
    ledger.end(1, book.TAKEN_BACK)
    ledger.end(3, book.REFUSED)
    ledger.close()
    assert [(fault.number, fault.kind) for fault in ledger.faults] == [
        (0, book.DUPLICATED),
        (3, book.WRONG),
        (2, book.LOST),
    ]
    with pytest.raises(ValueError, match="two requests"):
        ledger.send(0, book.PLAIN)


MOMENTS = np.arange(0, 1800, 2.0)


def noise() -> np.ndarray:
    """Bytes, where each sample is much as the one before."""
    random, found = np.random.default_rng(0), [0.0]
    for _ in MOMENTS[1:]:
        found.append(0.9 * found[-1] + random.normal(0, 5e5))
    return np.array(found)


def test_a_slope_is_seen_and_a_jump_is_none() -> None:
    per_second = 100e6 / 3600
    flat, leak, jump = (
        fit(MOMENTS, noise()),
        fit(MOMENTS, noise() + per_second * MOMENTS),
        np.where(MOMENTS < 900, 0, 1),
    )
    assert abs(flat.slope) < flat.error < per_second
    assert leak.least > 0.5 * per_second
    jumped = fit(MOMENTS, noise() + 80e6 * jump, [900])
    assert abs(jumped.slope) < jumped.error
    assert jumped.jumps[0] == pytest.approx(80e6, rel=0.1)
    assert fit(MOMENTS, noise() + 80e6 * jump).least > 0
    with pytest.raises(ValueError, match="too few"):
        fit(MOMENTS[:5], noise()[:5])


PLAN = Plan(seconds=1800, seed=0, load=0.9, cancelled=0.1, cut=0.1, broken=0.1, late=0.1, again=0.1)


def found(growth: float = 0.0, *, files: int = 0, status: int = 0, done: int = 5) -> Found:
    """A run: MB an hour that memory grew by, files left open, and what else it came to."""
    bytes_ = 3e8 + noise() + growth * 1e6 / 3600 * MOMENTS + np.where(MOMENTS < 1210, 0, 5e7)
    held = [
        Held(at=at, resident=int(held), anonymous=0, files=9, threads=9)
        for at, held in zip(MOMENTS, bytes_, strict=True)
    ]
    run = Found(deeds=Deeds(0, Ledger(), Random(0)), held=held, reloads=[(600, 605), (1200, 1205)], status=status)
    run.idle = [Held(at=0, resident=1, anonymous=1, files=9 + more, threads=9) for more in (0, files)]
    run.ended, run.answered = {"done": done, "failed": 0}, 5
    return run


def missed(run: Found, complaints: list[str] | None = None) -> list[str]:
    return [aim.row.what for aim in report(run, PLAN, complaints or []).aims if not aim.met]


def test_a_run_without_faults_misses_no_aim() -> None:
    assert missed(found()) == []


def test_each_fault_misses_its_aim() -> None:
    assert missed(found(200)) == ["memory surely grows by"]
    assert missed(found(files=5)) == ["open files more than before"]
    assert missed(found(status=-9)) == ["exit status"]
    assert missed(found(done=4)) == missed(found(done=6)) == ["done, of which nobody knows"]
    assert missed(found(), ["Traceback"]) == ["errors in its log"]
    run = found()
    run.deeds.ledger.send(1, book.PLAIN)
    run.deeds.ledger.close()
    run.reloads.pop()
    assert missed(run) == ["lost requests", "bundles loaded meanwhile"]


def test_pictures_differ_by_levels() -> None:
    one, other, larger = (
        base64.b64decode(file_of("x", 1, 1, size, shade)) for size, shade in (("8x8", 9), ("8x8", 12), ("16x8", 9))
    )
    assert (difference(one, one), difference(one, other), difference(one, larger)) == (0, 3, 255)
