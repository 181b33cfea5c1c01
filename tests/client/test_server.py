"""The clients and the real server, over HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from running import Running
from served import wait_until
from serving import serving

from sdxl_trt.client import AsyncClient, Busy, Client, Failed, Partial, Picture, Pictures, Refused
from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.png import read_png
from sdxl_trt.runtime.serve.http.keys import new_key

Ask = Callable[..., Any]
PROMPT = "a large red circle on a white background"
QUICK: dict[str, Any] = {"size": (64, 64), "steps": 3}
LONG: dict[str, Any] = {"size": (64, 64), "steps": 900}


@pytest.fixture(scope="module")
def real(demo_bundle: Path) -> Iterator[Running]:
    with serving(demo_bundle) as server:
        yield server


@pytest.fixture(scope="module")
def pipeline(demo_bundle: Path) -> Iterator[Pipeline]:
    with Pipeline.load(demo_bundle, threads=1) as opened:
        yield opened


def difference(image: Any, other: Any) -> int:
    return int(np.abs(np.asarray(image.convert("RGB"), int) - np.asarray(other, int)).max())


def test_pictures_are_those_of_the_pipeline(ask: Ask, real: Running, pipeline: Pipeline, tmp_path: Path) -> None:
    settings: Any = {**QUICK, "negative_prompt": "", "guidance": 4.0, "crop_top_left": (0, 8), "sampler": "DPM++ 2M"}
    pictures: Pictures = ask(
        real.base_url, "generate", PROMPT, seed=(7, 9), sigmas="karras", request_id="m:1", **settings
    )
    expected = pipeline(PROMPT, seed=(7, 9), **settings | {"sampler": "DPM++ 2M Karras"}).images
    assert max(map(difference, pictures.images, expected)) <= 1
    assert (pictures.seeds, pictures.request_id, len(pictures)) == ((7, 9), "m:1", 2)
    first = next(iter(pictures))
    first.save(tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == first.data
    assert read_png(tmp_path / "out.png").settings["Seed"] == 7


def test_a_body_that_is_too_large_is_told_so(ask: Ask, demo_bundle: Path) -> None:
    """And not a connection that was cut, whatever the client has sent of it by then."""
    noise = np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8)
    with serving(demo_bundle, body=2**20) as small, pytest.raises(Refused, match="too large"):
        ask(small.base_url, "edit", PROMPT, Image.fromarray(noise), **QUICK)


def test_other_formats(ask: Ask, real: Running) -> None:
    for kind in ("jpeg", "webp"):
        (picture,) = ask(real.base_url, "generate", PROMPT, output_format=kind, output_compression=80, **QUICK)
        assert (picture.format, picture.image.format, picture.image.size) == (kind, kind.upper(), (64, 64))


def test_edits_are_those_of_the_pipeline(ask: Ask, real: Running, pipeline: Pipeline, tmp_path: Path) -> None:
    picture, mask = Image.new("RGB", (64, 64), (30, 84, 240)), Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((16, 16, 47, 47), fill=255)
    picture.save(tmp_path / "in.png")
    settings: Any = {"steps": 4, "seed": 7, "strength": 0.8, "mask_blur": 0.5, "mask_padding": 8, "size": (64, 64)}
    expected = pipeline(PROMPT, image=picture, mask=mask, **settings).images[0]
    edited = ask(real.base_url, "edit", PROMPT, tmp_path / "in.png", mask=mask, **settings)
    assert difference(edited.images[0], expected) <= 1
    plain = ask(real.base_url, "edit", PROMPT, picture, steps=4, seed=[7], strength=0.8)
    assert difference(plain.images[0], pipeline(PROMPT, image=picture, steps=4, seed=7, strength=0.8).images[0]) <= 1


def test_a_stream_shows_pictures_on_their_way(ask: Ask, real: Running) -> None:
    events = ask(real.base_url, "stream", PROMPT, partial_images=2, n=2, seed=7, size=(64, 64), steps=9)
    partials = [each for each in events if isinstance(each, Partial)]
    assert sorted((each.index, each.number) for each in partials) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert all(each.image.size == (64, 64) for each in partials)
    done = [each for each in events if isinstance(each, Picture)]
    assert [each.seed for each in done] == [7, 8]
    alone = ask(real.base_url, "generate", PROMPT, seed=8, size=(64, 64), steps=9)
    assert difference(done[1].image, alone.images[0]) <= 1


def test_a_stream_of_edits(ask: Ask, real: Running) -> None:
    image = Image.new("RGB", (64, 64))
    events = ask(real.base_url, "stream", PROMPT, image=image, strength=0.9, steps=5, partial_images=1)
    assert [type(each) for each in events] == [Partial, Picture]


def test_what_the_server_is(ask: Ask, real: Running) -> None:
    assert ask(real.base_url, "ready") is True
    (model,) = ask(real.base_url, "models")
    assert model.id == real.context.service.room.model.name
    real.wait_until_idle()
    queue = ask(real.base_url, "queue")
    assert (queue.state, queue.requests) == ("ready", ())


@pytest.mark.parametrize(
    ("settings", "param", "told"),
    [
        ({"size": (8, 8)}, "size", "size"),
        ({"steps": 10**6}, "steps", "at most"),
        ({"sampler": "none"}, None, "unknown sampler"),
        ({"model": "other"}, "model", "not here"),
        ({"guidance": "much"}, "guidance", "guidance"),
    ],
)
def test_what_it_does_not_do(ask: Ask, real: Running, settings: Any, param: str | None, told: str) -> None:
    with pytest.raises(Refused, match=told) as raised:
        ask(real.base_url, "generate", PROMPT, **settings)
    assert raised.value.exit_status == 2
    assert param is None or str(raised.value.complaint.param).startswith(param)


def test_a_request_can_be_taken_back_by_its_name(ask: Ask, real: Running) -> None:
    def cancel() -> None:
        wait_until(lambda: "long" in real.context.jobs)
        with Client(real.base_url) as client:
            (waiting,) = client.queue().requests
            assert (waiting.id, waiting.of, waiting.pictures) == ("long", 900, 1)
            client.cancel("long")

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Failed, match="cancelled") as raised:
        ask(real.base_url, "generate", PROMPT, request_id="long", **LONG)
    thread.join()
    assert raised.value.complaint.code == "cancelled"
    with pytest.raises(Refused, match="no request of that id"):
        ask(real.base_url, "cancel", "long")


def test_a_deadline_is_kept(ask: Ask, real: Running) -> None:
    with pytest.raises(Failed, match="not done in the time") as raised:
        ask(real.base_url, "generate", PROMPT, deadline=0.2, **LONG)
    assert raised.value.complaint.status == 504


def test_a_stream_that_nobody_reads_on_is_taken_back(real: Running) -> None:
    with Client(real.base_url) as client:
        events = client.stream(PROMPT, partial_images=3, **LONG)
        assert isinstance(next(events), Partial)
        events.close()
        real.wait_until_idle()


def test_what_waits_for_nobody_is_taken_back(real: Running) -> None:
    async def give_up() -> None:
        async with AsyncClient(real.base_url) as client:
            task = asyncio.ensure_future(client.generate(PROMPT, **LONG))
            await asyncio.to_thread(wait_until, lambda: bool(real.context.jobs))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(real.wait_until_idle)

    asyncio.run(give_up())


def test_many_at_once(real: Running, pipeline: Pipeline) -> None:
    async def all_of_them() -> list[Pictures]:
        async with AsyncClient(real.base_url) as client:
            return await asyncio.gather(*(client.generate(PROMPT, seed=seed, **QUICK) for seed in range(6)))

    for seed, pictures in enumerate(asyncio.run(all_of_them())):
        assert pictures.seeds == (seed,)
        assert difference(pictures.images[0], pipeline(PROMPT, seed=seed, **QUICK).images[0]) <= 1


def test_keys_and_a_full_queue(ask: Ask, demo_bundle: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    key, operator = new_key(keys, "alice"), new_key(keys, "ops", admin=True)
    with serving(demo_bundle, queue=1, keys=keys) as server, Client(server.base_url, api_key=key) as client:
        with pytest.raises(Refused, match="API key is needed"):
            ask(server.base_url, "generate", PROMPT, **QUICK)
        with pytest.raises(Refused, match="not an operator's"):
            ask(server.base_url, "queue", options={"api_key": key})
        assert ask(server.base_url, "ready")
        events = client.stream(PROMPT, **LONG)
        next(events)
        with pytest.raises(Busy, match="queue is full") as raised:
            ask(server.base_url, "generate", PROMPT, options={"api_key": key, "retries": 0}, **QUICK)
        assert (raised.value.retry_after or 0) >= 1
        (waiting,) = ask(server.base_url, "queue", options={"api_key": operator}).requests
        assert waiting.client == "alice"
        events.close()
