"""Whatever is sent, and wherever it is cut off: a clear 4xx or a closed connection, and the loop is undisturbed.

Beside everything here a request runs that is good: it gets the picture that it gets alone, and nothing is left waiting.
"""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bare_http import GENERATIONS, form, head_and_body, png_file, png_of
from PIL import Image
from running import Running, running, talk
from served import wait_until

from sdxl_trt.runtime.request import Request
from sdxl_trt.runtime.serve.http.context import Context, Settings
from sdxl_trt.runtime.serve.http.keys import new_key
from sdxl_trt.runtime.serve.job import DENOISING, QUEUED, Job, Terms

pytestmark = pytest.mark.timed

OPENAI, TEXT, IMAGE = "/v1/images/generations", "/sdapi/v1/txt2img", "/sdapi/v1/img2img"
GOOD = {"prompt": "a large red circle on a white background", "size": "64x64", "steps": 30, "seed": 11}
LONG = GOOD | {"steps": 290, "size": "192x192"}
A1111 = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 2}
REFUSED_SECONDS = 10.0
BOUNDARY = "multipart/form-data; boundary=b"


@pytest.fixture(scope="module")
def expected(server: Running) -> Image.Image:
    """What the good request gives alone."""
    server.wait_until_idle()
    return picture_of(server.post(OPENAI, json=GOOD).json())


@pytest.fixture
def beside(idle: Running, expected: Image.Image) -> Iterator[Running]:
    """The server, while a good request runs; at the end it was answered as it should, and nothing waits."""
    answers = list[Any]()
    asking = threading.Thread(target=lambda: answers.append(idle.post(OPENAI, json=GOOD)))
    asking.start()
    wait_until(lambda: bool(idle.context.jobs))
    yield idle
    asking.join(60)
    assert answers[0].status_code == 200
    assert np.abs(np.asarray(picture_of(answers[0].json()), int) - np.asarray(expected, int)).max() <= 1
    idle.wait_until_idle()
    queue = idle.get("/admin/queue").json()
    assert (queue["state"], queue["requests"]) == ("ready", [])


def picture_of(told: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(told["data"][0]["b64_json"]))).convert("RGB")


def refused(server: Running, path: str, status: int, *parts: str, **how: Any) -> None:
    """It is, in good time, in words, and without a step."""
    began = time.monotonic()
    answer = server.post(path, **how)
    said = answer.json()
    told = said["error"]["message"] if path.startswith("/v1") else said["detail"]
    assert (answer.status_code, time.monotonic() - began < REFUSED_SECONDS) == (status, True), told
    assert all(part in told for part in parts), told


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"steps": 10**9}, "steps"),
    ({"steps": -1}, "steps"),
    ({"steps": "many"}, "steps"),
    ({"steps": True, "seed": []}, "s"),
    ({"seed": 2**80}, "seed"),
    ({"prompt": {"text": "x"}}, "prompt"),
    ({"prompt": "x" * 10**7}, "characters"),
    ({"negative_prompt": "x" * 10**7}, "characters"),
    ({"number_of_cats": 3, "hats": 1}, "number_of_cats, hats"),
]
OPENAIS: list[tuple[dict[str, Any], str]] = [
    ({"n": 10**9}, "n "),
    ({"guidance": [5.0] * 2000}, "guidance"),
    ({"guidance": 1e308}, "guidance"),
    ({"size": "0x0"}, "size"),
    ({"size": "99992x99992"}, "64x64 to 192x192"),
    ({"size": "256x256"}, "64x64 to 192x192"),
    ({"size": "-64x64"}, "size"),
    ({"model": "dall-e-3"}, "sdxl-shapes"),
    ({"sampler": "fastest"}, "euler"),
    ({"image": "file:///etc/passwd"}, "unknown field image"),
    ({"deadline": -1}, "deadline"),
    ({"partial_images": 99, "stream": True}, "partial_images"),
]
A1111S: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 10**9, "n_iter": 10**9}, "batch_size"),
    ({"cfg_scale": 1e308}, "guidance"),
    ({"width": 256}, "64x64 to 192x192"),
    ({"width": -64}, "got"),
    ({"width": 8 * 10**30}, "64x64 to 192x192"),
    ({"sampler_name": "fastest"}, "euler"),
    ({"override_settings": {"sd_model_checkpoint": "dreamshaper"}}, "sd_model_checkpoint"),
]


@pytest.mark.parametrize(("fields", "part"), WRONG + OPENAIS)
def test_openais_fields_that_cannot_be(beside: Running, fields: dict[str, Any], part: str) -> None:
    status = 404 if "model" in fields else 400
    refused(beside, OPENAI, status, part, json={"prompt": "x", "size": "64x64"} | fields)


@pytest.mark.parametrize(("fields", "part"), WRONG + A1111S)
def test_a1111s_fields_that_cannot_be(beside: Running, fields: dict[str, Any], part: str) -> None:
    answer = beside.post(TEXT, json=A1111 | fields)
    assert answer.status_code in (400, 422)
    assert part in answer.json()["detail"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"prompt": "\xff"}', b'{"cfg_scale": NaN}', b'{"cfg_scale": Infinity}', b"[" * 10**6]
)
def test_json_that_is_none_to_a1111(beside: Running, body: bytes) -> None:
    answer = beside.post(TEXT, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["detail"]


@pytest.mark.parametrize("kept", range(1, 110, 6))
def test_a_form_that_is_cut_short_is_not_read_as_a_shorter_one(beside: Running, kept: int) -> None:
    """Its last field would be left out, and what was asked for would be something else."""
    whole = form(("image", png(), "a.png"), ("prompt", b"x", None), ("size", b"64x64", None), ("n", b"2", None))
    cut = whole[: whole.index(b'name="size"') + kept]
    if b"--b--" not in cut:
        refused(beside, "/v1/images/edits", 400, "no end", content=cut, headers={"Content-Type": BOUNDARY})


def png(mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((64, 64, len(mode)), 90, np.uint8)).save(file, "PNG")
    return file.getvalue()


def gigapixels() -> bytes:
    """A whole PNG file of 1.6 · 10⁹ pixels, all of them there: 200 kB."""
    edge, packer, packed = 40_000, zlib.compressobj(9), b""
    row = bytes(1 + edge // 8)
    for _ in range(edge // 100):
        packed += packer.compress(row * 100)
    return png_file(struct.pack(">IIBBBBB", edge, edge, 1, 0, 0, 0, 0), (b"IDAT", packed + packer.flush()))


def texts() -> bytes:
    """A PNG file whose texts unpack to 400 MB."""
    packed = b"a\0\0" + zlib.compress(bytes(2**22), 9)
    whole = zlib.compress(bytes(64 * 193))
    return png_file(struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0), *[(b"zTXt", packed)] * 100, (b"IDAT", whole))


def outgrown() -> bytes:
    """A GIF file of one pixel, with a frame of 65,535 × 65,535."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\2\2\x44\1\0;"


BOMBS: dict[str, Callable[[], bytes]] = {
    "gigapixels": gigapixels,
    "texts": texts,
    "outgrown": outgrown,
    "truncated": lambda: png()[:-30],
    "says it is large": lambda: png_of(60_000, 60_000),
    "no picture": lambda: b"GIF89a" + bytes(1000),
    "random": lambda: np.random.default_rng(0).bytes(10_000),
    "an SVG file": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
}


@pytest.mark.parametrize("name", BOMBS)
def test_pictures_that_are_bombs_take_no_memory(beside: Running, name: str) -> None:
    bomb = BOMBS[name]()
    shown = base64.b64encode(bomb).decode()
    peak = most_memory()
    edit = form(("prompt", b"x", None), ("image", bomb, "a.png"))
    refused(beside, "/v1/images/edits", 400, content=edit, headers={"Content-Type": BOUNDARY})
    masked = form(("prompt", b"x", None), ("image", png(), "a.png"), ("mask", bomb, "m.png"))
    refused(beside, "/v1/images/edits", 400, content=masked, headers={"Content-Type": BOUNDARY})
    for fields in ({"init_images": [shown]}, {"init_images": [base64.b64encode(png()).decode()], "mask": shown}):
        answer = beside.post(IMAGE, json=A1111 | fields)
        assert answer.status_code in (400, 422), answer.text
    assert beside.post("/sdapi/v1/png-info", json={"image": shown}).status_code == 422
    assert most_memory() - peak < 200 * 2**20


def most_memory() -> int:
    """Bytes that this process had at most."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def test_a_form_larger_than_memory_is_not_taken(beside: Running) -> None:
    began = time.monotonic()
    head = f"POST /v1/images/edits HTTP/1.1\r\nHost: x\r\nContent-Type: {BOUNDARY}\r\nContent-Length: {10**13}\r\n\r\n"
    start = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    assert head_and_body(talk(beside.address, head.encode() + start, *[bytes(2**16)] * 100))[0] == 413
    assert time.monotonic() - began < REFUSED_SECONDS


@pytest.mark.parametrize(
    ("head", "drip"),
    [
        (b"", b"P"),
        (b"POST /v1/images/generations HTTP/1.1\r\n", b"X-A: b\r\n"),
        (GENERATIONS + b"Content-Length: 5000\r\n\r\n", b" "),
        (GENERATIONS + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ],
    ids=["line", "headers", "body", "chunks"],
)
def test_who_sends_byte_by_byte_is_not_waited_for(beside: Running, head: bytes, drip: bytes) -> None:
    began = time.monotonic()
    answers = list[bytes]()
    slow = [
        threading.Thread(target=lambda: answers.append(talk(beside.address, head, *[drip] * 40, pause=0.2)))
        for _ in range(20)
    ]
    for each in slow:
        each.start()
    for each in slow:
        each.join(20)
    assert time.monotonic() - began < 8
    assert len(answers) == 20
    assert not any(b" 200 " in answer for answer in answers)


@pytest.mark.parametrize("length", [3, 5000])
def test_a_length_that_lies(beside: Running, length: int) -> None:
    body = json.dumps(GOOD | {"steps": 1}).encode()
    answer = talk(beside.address, GENERATIONS + b"Content-Length: %d\r\n\r\n%b" % (length, body))
    assert head_and_body(answer)[0] in (400, 408)
    assert b" 200 " not in answer


def test_a_wrong_key_is_refused_before_the_body_has_come(beside: Running, tmp_path: Path) -> None:
    new_key(tmp_path / "keys", "alice")
    settings = Settings(keys=tmp_path / "keys", body_seconds=5.0)
    with running(Context(service=beside.context.service, settings=settings)) as locked:
        for given in (b"Bearer sdxl-trt-guess", b"Bearer \xff", b"Basic \xff", b"Basic " + b"A" * 5000, b"x" * 20_000):
            began = time.monotonic()
            key = b"Authorization: %b\r\nConnection: close\r\n" % given
            answer = talk(locked.address, GENERATIONS + key + b"Content-Length: 50000000\r\n\r\n{")
            assert head_and_body(answer)[0] in (401, 400, 431), answer
            assert time.monotonic() - began < 2


@contextmanager
def connected(server: Running, body: dict[str, Any]) -> Iterator[socket.socket]:
    """A client that asked, and is then cut off: by a reset."""
    data = json.dumps(body).encode()
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(GENERATIONS + b"Content-Length: %d\r\n\r\n%b" % (len(data), data))
        yield connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def job_of(server: Running, steps: int) -> Job | None:
    """The request that has so many."""
    return next((job for job in server.context.service.jobs() if job.request.steps == steps), None)


@pytest.mark.parametrize("kept", [1, 20, 41, 70, 120, 130, 160])
@pytest.mark.parametrize("reset", [True, False], ids=["reset", "end"])
def test_a_connection_cut_before_the_request_is_whole(beside: Running, kept: int, reset: bool) -> None:
    data = json.dumps(LONG).encode()
    whole = GENERATIONS + b"Content-Length: %d\r\n\r\n%b" % (len(data), data)
    with socket.create_connection(beside.address, timeout=20) as connection:
        connection.sendall(whole[:kept])
        time.sleep(0.02)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.1)
    assert job_of(beside, LONG["steps"]) is None


def test_a_connection_cut_while_the_request_waits(beside: Running) -> None:
    service = beside.context.service
    first = [
        service.submit(Request(prompt="x", size=(192, 192), steps=250, seed=seed), Terms(client="first", priority=2))
        for seed in range(8)
    ]
    with connected(beside, LONG | {"priority": -2, "size": "128x64"}):
        wait_until(lambda: (job := job_of(beside, 290)) is not None and bool(job.plans))
        job = job_of(beside, 290)
        assert job is not None
        assert (job.stage, job.progress[0]) == (QUEUED, 0)
    wait_until(lambda: job_of(beside, 290) is None, 10)
    assert not any(each.result.done() for each in first)
    for each in first:
        service.cancel(each)


@pytest.mark.parametrize("stream", [True, False])
def test_a_connection_cut_while_the_picture_is_denoised(beside: Running, stream: bool) -> None:
    with connected(beside, LONG | {"stream": stream}):
        wait_until(lambda: (job := job_of(beside, 290)) is not None and job.stage == DENOISING)
    wait_until(lambda: job_of(beside, 290) is None, 10)


def test_a_connection_cut_in_the_middle_of_a_stream(beside: Running) -> None:
    with connected(beside, LONG | {"stream": True, "partial_images": 3}) as connection:
        received = b""
        while b"event: image_generation.partial_image" not in received:
            received += connection.recv(65536)
    wait_until(lambda: job_of(beside, 290) is None, 10)


def test_a_client_that_does_not_read_holds_up_nobody(beside: Running) -> None:
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.connect(beside.address)
        data = json.dumps(GOOD | {"steps": 2, "n": 8, "size": "192x192"}).encode()
        deaf.sendall(GENERATIONS + b"Content-Length: %d\r\n\r\n%b" % (len(data), data))
        beside.wait_until_idle()
        assert beside.post(OPENAI, json=GOOD | {"steps": 1}).status_code == 200


class Watch:
    """What this process opens and connects to, while it is told to look."""

    def __init__(self) -> None:
        self.seen: list[str] | None = None
        sys.addaudithook(self._look)  # for good: it cannot be taken away

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.seen is not None and event in ("open", "socket.connect", "socket.getaddrinfo"):
            self.seen.append(f"{event} {arguments!r}")


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


def test_no_path_and_no_url_that_a_client_sends_is_ever_opened(beside: Running, watch: Watch, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png())
    with socket.create_server(("127.0.0.1", 0)) as trap:
        port = trap.getsockname()[1]
        trap.setblocking(False)
        url = f"http://127.0.0.1:{port}/secret.png"
        watch.seen = []
        for text in (str(secret), secret.as_uri(), url, f"data:image/png;base64,{url}", f"data:image/png,{secret}"):
            _try_everywhere(beside, text)
        seen, watch.seen = watch.seen, None
        with pytest.raises(BlockingIOError):
            trap.accept()
    assert seen  # the clients' own connections: it was looked at
    assert not [line for line in seen if "secret" in line or str(port) in line]


def _try_everywhere(server: Running, text: str) -> None:
    """In every field that takes a picture, or a name of something."""
    shown = base64.b64encode(png()).decode()
    for path, fields in (
        (IMAGE, {"init_images": [text]}),
        (IMAGE, {"init_images": [shown], "mask": text}),
        (IMAGE, {"init_images": [shown], "latent_mask": text}),
        (TEXT, {"firstpass_image": text}),
        (TEXT, {"sampler_name": text}),
        (TEXT, {"refiner_checkpoint": text}),
        (TEXT, {"override_settings": {"sd_model_checkpoint": text}}),
        ("/sdapi/v1/png-info", {"image": text}),
        ("/sdapi/v1/options", {"sd_model_checkpoint": text}),
        ("/admin/reload", {"bundle": text}),
        (OPENAI, {"prompt": "x", "image": text}),
        (OPENAI, {"prompt": "x", "sampler": text[:90]}),
        (OPENAI, {"prompt": "x", "model": text}),
    ):
        body = (A1111 | fields) if path in (TEXT, IMAGE) else fields
        assert 400 <= server.post(path, json=body).status_code < 500, (path, fields)
    for parts in (
        [("image", text.encode(), None)],
        [("image", text.encode(), text)],
        [("image", png(), text), ("mask", text.encode(), text)],
    ):
        content = form(("prompt", b"x", None), *parts)
        answer = server.post("/v1/images/edits", content=content, headers={"Content-Type": BOUNDARY})
        assert answer.status_code == 400, parts
