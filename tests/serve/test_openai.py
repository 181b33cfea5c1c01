"""OpenAI's images API, asked by OpenAI's own client."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image
from running import Running
from served import wait_until

from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.png import read_png

PROMPT = "a large red circle on a white background"
SIZE = "64x64"


def connect(server: Running, **how: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.base_url}/v1", api_key="none", max_retries=0, **how)


@pytest.fixture
def client(idle: Running) -> openai.OpenAI:
    return connect(idle)


def few(**settings: Any) -> dict[str, Any]:
    """Fields of a quick request; ours travel as extras."""
    return {"prompt": PROMPT, "size": SIZE, "extra_body": {"steps": 3, "seed": 7} | settings}


def decoded(b64: str | None) -> Image.Image:
    assert b64 is not None
    return Image.open(io.BytesIO(base64.b64decode(b64)))


def png(pixels: Any) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, "PNG")
    file.seek(0)
    file.name = "picture.png"
    return file


BLUE = np.full((64, 64, 3), (30, 84, 240))


def test_a_picture_is_the_one_that_the_pipeline_makes_and_says_how(
    client: openai.OpenAI, wide_bundle: Path, tmp_path: Path
) -> None:
    answer = client.images.generate(**few(), model="sdxl-shapes", n=1)
    made = decoded(answer.data[0].b64_json)
    with Pipeline.load(wide_bundle, threads=1) as pipeline:
        expected = pipeline(PROMPT, size=(64, 64), steps=3, seed=7).images[0]
    assert np.abs(np.asarray(made, int) - np.asarray(expected, int)).max() <= 1
    assert (answer.size, answer.output_format, answer.background) == (SIZE, "png", "opaque")
    assert answer.usage.input_tokens == answer.usage.output_tokens == answer.usage.total_tokens == 0
    assert answer.data[0].revised_prompt is None
    assert answer.data[0].seed == 7
    (tmp_path / "out.png").write_bytes(base64.b64decode(answer.data[0].b64_json))
    parameters = read_png(tmp_path / "out.png")
    assert parameters.prompt == PROMPT
    assert {"Steps": 3, "Seed": 7, "Size": SIZE, "Model": "sdxl-shapes"}.items() <= parameters.settings.items()


def test_several_pictures_have_seeds_from_the_first_upwards(client: openai.OpenAI) -> None:
    several = client.images.generate(**few(), n=3)
    assert [each.seed for each in several.data] == [7, 8, 9]
    alone = client.images.generate(**few(seed=8))
    same, other = (np.asarray(decoded(several.data[i].b64_json), int) for i in (1, 2))
    assert np.abs(np.asarray(decoded(alone.data[0].b64_json), int) - same).max() <= 1
    assert np.abs(other - same).max() > 1
    listed = client.images.generate(**few(seed=[5, 900]))
    assert [each.seed for each in listed.data] == [5, 900]


def test_without_a_size_and_a_seed_the_model_chooses(client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt=PROMPT, size="auto", extra_body={"steps": 1})
    assert decoded(answer.data[0].b64_json).size == (128, 128)
    assert 0 <= answer.data[0].seed < 2**32


def test_formats_and_compression(client: openai.OpenAI) -> None:
    sizes = {}
    for kind in ("jpeg", "webp"):
        for quality in (10, 100):
            answer = client.images.generate(**few(), output_format=kind, output_compression=quality)
            assert decoded(answer.data[0].b64_json).format == kind.upper()
            assert answer.output_format == kind
            sizes[kind, quality] = len(answer.data[0].b64_json)
        assert sizes[kind, 10] < sizes[kind, 100]


def test_all_our_settings_are_extras(client: openai.OpenAI, idle: Running) -> None:
    ours = {
        "steps": 4,
        "guidance": [5, 5, 1, 1.0],
        "guidance_rescale": 0.2,
        "sampler": "DPM++ 2M",
        "sigmas": "karras",
        "negative_prompt": "blue",
        "weighting": "a1111",
        "clip_skip": 1,
        "original_size": "96x64",
        "crop_top_left": "0,8",
        "rng": "cuda",
        "priority": 1,
        "deadline": 60,
    }
    answer = client.images.generate(prompt=PROMPT, size=SIZE, extra_body=ours)
    text = decoded(answer.data[0].b64_json).text["parameters"]
    for part in (
        "Sampler: DPM++ 2M",
        "karras",
        "Negative prompt: blue",
        "Original size: 96x64",
        'Crop top left: "0,8"',
    ):
        assert part in text
    assert "RNG" not in text


def test_the_asynchronous_client_and_many_at_a_time(idle: Running) -> None:
    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{idle.base_url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(
                *(client.images.generate(**few(seed=i % 2, steps=1 + i % 5)) for i in range(12))
            )

    answers = asyncio.run(ask())
    assert [each.data[0].seed for each in answers] == [i % 2 for i in range(12)]
    assert len({answer.data[0].b64_json for answer in answers}) > 5


def test_a_stream_shows_the_way_there(client: openai.OpenAI) -> None:
    stream = client.images.generate(**few(steps=12), stream=True, partial_images=2)
    events = list(stream)
    assert [event.type for event in events] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [event.partial_image_index for event in events[:-1]] == [0, 1]
    assert all(event.size == SIZE and event.output_format == "png" for event in events)
    last = events[-1]
    assert last.usage.total_tokens == 0
    whole = client.images.generate(**few(steps=12))
    pictures = [np.asarray(decoded(each), float) for each in (*(e.b64_json for e in events), whole.data[0].b64_json)]
    assert np.abs(pictures[2] - pictures[3]).max() <= 1
    assert np.abs(pictures[0] - pictures[2]).mean() > np.abs(pictures[1] - pictures[2]).mean() > 0


def test_a_stream_of_the_asynchronous_client_and_of_several_pictures(idle: Running) -> None:
    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{idle.base_url}/v1", api_key="none", max_retries=0) as client:
            stream = await client.images.generate(**few(steps=6), n=2, stream=True, partial_images=1)
            return [event async for event in stream]

    events = asyncio.run(ask())
    partials, ends = events[:2], events[2:]
    assert {(each.type, each.image_index) for each in partials} == {
        ("image_generation.partial_image", 0),
        ("image_generation.partial_image", 1),
    }
    assert [(each.type, each.image_index, each.seed) for each in ends] == [
        ("image_generation.completed", 0, 7),
        ("image_generation.completed", 1, 8),
    ]


def test_an_edit_without_a_mask_starts_from_the_picture(client: openai.OpenAI) -> None:
    near, far = (
        np.asarray(decoded(client.images.edit(image=png(BLUE), **few(steps=5, strength=s)).data[0].b64_json), float)
        for s in (0.2, 1.0)
    )
    assert near.shape == far.shape == BLUE.shape
    assert np.abs(near - BLUE).mean() < np.abs(far - BLUE).mean()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_edit_paints_what_is_transparent_in_the_mask(idle: Running, asynchronous: bool) -> None:
    mask = np.zeros((64, 64, 4))
    mask[..., 3] = 255
    mask[24:48, 24:48, 3] = 0
    asked = few(steps=5, strength=0.9, mask_padding=8, mask_blur=0.0, mask_soft=False)
    if asynchronous:

        async def ask() -> Any:
            async with openai.AsyncOpenAI(base_url=f"{idle.base_url}/v1", api_key="none", max_retries=0) as client:
                return await client.images.edit(image=[png(BLUE)], mask=png(mask), **asked)

        answer = asyncio.run(ask())
    else:
        answer = connect(idle).images.edit(image=png(BLUE), mask=png(mask), **asked)
    changed = np.abs(np.asarray(decoded(answer.data[0].b64_json), int) - BLUE).max(axis=2) > 0
    assert changed[24:48, 24:48].any()
    changed[24:48, 24:48] = False
    assert not changed.any()


def test_an_edit_can_be_streamed(client: openai.OpenAI) -> None:
    events = list(client.images.edit(image=png(BLUE), **few(steps=8, strength=1.0), stream=True, partial_images=1))
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]


def test_models(client: openai.OpenAI) -> None:
    assert [each.id for each in client.models.list()] == ["sdxl-shapes"]
    assert client.models.retrieve("sdxl-shapes").owned_by == "sdxl-trt"
    for ask in (
        lambda: client.models.retrieve("gpt-image-1"),
        lambda: client.images.generate(**few(), model="dall-e-3"),
    ):
        with pytest.raises(openai.NotFoundError) as error:
            ask()
        assert error.value.code == "model_not_found"
        assert "sdxl-shapes" in error.value.message


@pytest.mark.parametrize(
    ("fields", "param", "parts"),
    [
        ({"response_format": "url"}, "response_format", ["'url'", "b64_json"]),
        ({"quality": "hd"}, "quality", ["auto"]),
        ({"background": "transparent"}, "background", ["opaque"]),
        ({"style": "natural"}, "style", ["vivid"]),
        ({"output_format": "gif"}, "output_format", ["webp"]),
        ({"output_compression": 101}, "output_compression", ["100"]),
        ({"output_compression": 50}, "output_compression", ["webp"]),
        ({"partial_images": 2}, "partial_images", ["stream"]),
        ({"stream": True, "partial_images": 4}, "partial_images", ["3"]),
        ({"n": 0}, "n", []),
        ({"n": 1001}, "n", []),
        ({"n": 500}, None, ["too many pictures", "at most 10"]),
        ({"size": "100x100"}, "size", ["multiple of 8"]),
        ({"size": "1024x1024"}, "size", ["64x64 to 192x192"]),
        ({"size": "big"}, "size", []),
        ({"extra_body": {"steps": 10**9}}, "steps", ["at most 1000"]),
        ({"extra_body": {"steps": 10**30}}, "steps", ["far more"]),
        ({"extra_body": {"steps": 299, "sampler": "Heun"}}, None, ["too many evaluations"]),
        ({"extra_body": {"steps": "3"}}, "steps", ["integer"]),
        ({"extra_body": {"steps": True}}, "steps", ["integer"]),
        ({"extra_body": {"stepz": 3, "frames": 1}}, "stepz", ["unknown field stepz, frames"]),
        ({"extra_body": {"sampler": "eular"}}, "sampler", ["did you mean euler"]),
        ({"extra_body": {"guidance": [5, 4], "steps": 3}}, "guidance", []),
        ({"extra_body": {"seed": [1, 2]}, "n": 3}, "seed", ["2 seeds"]),
        ({"extra_body": {"seed": 2**64}}, "seed", ["seed"]),
        ({"extra_body": {"priority": 9}}, "priority", ["priority"]),
        ({"extra_body": {"deadline": -1}}, "deadline", ["deadline"]),
        ({"extra_body": {"zero_snr": True}}, None, ["from noise alone"]),
        ({"extra_body": {"strength": 0.5}}, "strength", ["image"]),
        ({"extra_body": {"refiner_start": 0.8}}, "refiner_start", ["refiner"]),
        ({"extra_body": {"image": "/etc/passwd"}}, "image", ["unknown field"]),
        ({"prompt": "word " * 5000}, None, ["too many characters"]),
        ({"prompt": "word " * 1000}, "prompt", ["chunks"]),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    client: openai.OpenAI, fields: dict[str, Any], param: str | None, parts: list[str]
) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.images.generate(**{"prompt": PROMPT, "size": SIZE} | fields)
    assert error.value.type == "invalid_request_error"
    assert error.value.param == param
    assert all(part in error.value.message for part in parts), error.value.message


def test_a_stream_that_is_refused_before_its_first_event_has_its_status(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="chunks"):
        client.images.generate(prompt="word " * 1000, stream=True, partial_images=1)


@pytest.mark.parametrize(
    ("form", "param", "parts"),
    [
        ({"mask": png(BLUE)}, "mask", ["no transparency"]),
        ({"mask": png(np.zeros((8, 8, 4)))}, "mask", ["the same size"]),
        ({"image": io.BytesIO(b"no picture")}, "image", ["picture"]),
        ({"image": [png(BLUE), png(BLUE)]}, "image", ["more than one"]),
        ({"extra_body": {"steps": "many"}}, "steps", ["integer"]),
        ({"extra_body": {"file": "x"}}, "file", ["unknown field"]),
        ({"n": 2, "extra_body": {"steps": 1, "seed": [1, 2, 3]}}, "seed", ["3 seeds"]),
    ],
)
def test_edits_that_cannot_be(client: openai.OpenAI, form: dict[str, Any], param: str | None, parts: list[str]) -> None:
    for file in (each for each in form.values() if isinstance(each, io.BytesIO)):
        file.seek(0)
    with pytest.raises(openai.BadRequestError) as error:
        client.images.edit(**{"image": png(BLUE), "prompt": PROMPT, "size": SIZE} | form)
    assert error.value.param == param
    assert all(part in error.value.message for part in parts), error.value.message


def test_a_full_queue_says_when_to_come_again(
    client: openai.OpenAI, idle: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle.context.service, "limits", dataclasses.replace(idle.context.service.limits, queue=0))
    with pytest.raises(openai.RateLimitError) as error:
        client.images.generate(**few())
    assert int(error.value.response.headers["Retry-After"]) >= 1


def test_a_deadline_that_passes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as error:
        client.images.generate(prompt=PROMPT, size="192x192", extra_body={"steps": 250, "deadline": 0.3})
    assert error.value.status_code == 504
    assert error.value.code == "deadline_passed"
    assert error.value.response.headers["X-Should-Retry"] == "false"


def test_clients_that_go_away_take_their_requests_with_them(idle: Running) -> None:
    long = {"prompt": PROMPT, "size": "192x192", "extra_body": {"steps": 290}}
    with pytest.raises(openai.APITimeoutError):
        connect(idle, timeout=0.5).images.generate(**long)
    wait_until(lambda: not idle.context.service.jobs(), 2)
    stream = connect(idle).images.generate(**long, stream=True, partial_images=3)
    assert next(stream).type == "image_generation.partial_image"
    stream.close()
    wait_until(lambda: not idle.context.service.jobs(), 2)


def test_without_keys_a_user_is_a_client_of_its_own(client: openai.OpenAI, idle: Running) -> None:
    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=f"{idle.base_url}/v1", api_key="none", max_retries=0) as other:
            long = [
                asyncio.create_task(other.images.generate(**few(steps=200), **more)) for more in ({"user": "ann"}, {})
            ]
            await asyncio.to_thread(wait_until, lambda: len(idle.context.service.jobs()) == 2)
            assert {job.client for job in idle.context.service.jobs()} == {"ann", "127.0.0.1"}
            await asyncio.gather(*long)

    asyncio.run(ask())
