"""Requests as no honest client sends them: each gets a clear 4xx, or its connection ends, and nobody else notices."""

from __future__ import annotations

import http.client
import io
import json
import socket
import struct
import time
from collections.abc import Iterator

import numpy as np
import pytest
from bare_http import GENERATIONS, form, head_and_body, png_of
from PIL import Image
from running import Running, running, talk, wait_until

from sdxl_trt.runtime.serve.http import bodies
from sdxl_trt.runtime.serve.http.context import Context, Settings

pytestmark = pytest.mark.timed

GOOD = {"prompt": "a red circle", "size": "64x64", "steps": 1}
LIMIT = 2**16


@pytest.fixture
def server(idle: Running) -> Iterator[Running]:
    """The shared server; whatever it was sent, it takes requests afterwards."""
    yield idle
    assert idle.post("/v1/images/generations", json=GOOD).status_code == 200


@pytest.fixture
def small(server: Running) -> Iterator[Running]:
    """One that takes 64 KiB."""
    settings = Settings(body=LIMIT, body_seconds=0.5, idle_seconds=0.5)
    with running(Context(service=server.context.service, settings=settings)) as one:
        yield one


def picture(mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, len(mode)), np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_a_body_that_says_it_is_too_large_is_not_read(small: Running) -> None:
    began = time.monotonic()
    status, headers, body = head_and_body(talk(small.address, GENERATIONS + b"Content-Length: 100000000000\r\n\r\n{"))
    assert (status, headers["connection"]) == (413, "close")
    assert body["error"]["code"] == "request_too_large"
    assert time.monotonic() - began < 0.4


def test_a_body_that_does_not_say_it_is_too_large_is_cut_off(small: Running) -> None:
    chunk = b"%x\r\n" % 2**12 + b" " * 2**12 + b"\r\n"
    answer = talk(small.address, GENERATIONS + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 40)
    assert head_and_body(answer)[0] == 413


def test_as_much_as_is_allowed_is_taken(small: Running) -> None:
    text = json.dumps(GOOD).encode()
    assert small.post(
        "/v1/images/generations",
        content=text + b" " * (LIMIT - len(text)),
        headers={"Content-Type": "application/json"},
    ).status_code == 200  # fmt: skip


@pytest.mark.parametrize("parts", [[], [b"{"], [b'{"pro', b"mpt", b'": "', b"x" * 100, b"y", b"z"]])
def test_a_body_that_does_not_come_is_not_waited_for(small: Running, parts: list[bytes]) -> None:
    began = time.monotonic()
    answer = talk(small.address, GENERATIONS + b"Content-Length: 5000\r\n\r\n", *parts, pause=0.15)
    status, headers, body = head_and_body(answer)
    assert (status, headers["connection"], body["error"]["code"]) == (408, "close", "request_timeout")
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "parts",
    [[], [b"GET /healthz HTT"], [b"GET /healthz HTTP/1.1\r\n", *[b"X-A: b\r\n"] * 20]],
    ids=["", "line", "head"],
)
def test_a_head_that_does_not_come_is_not_waited_for(small: Running, parts: list[bytes]) -> None:
    began = time.monotonic()
    assert b"200 OK" not in talk(small.address, *parts, pause=0.1)
    assert time.monotonic() - began < 2.5


def test_a_connection_is_not_kept_open_by_a_body_that_nobody_wants(small: Running) -> None:
    """After its answer a client goes on to send the rest, byte by byte."""
    began = time.monotonic()
    head = b"POST /nowhere/at/all HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n"
    answer = talk(small.address, head + b"x" * 30 + b"GET", *[b" "] * 20, pause=0.1)
    assert b"404" in answer.partition(b"\r\n")[0]
    assert time.monotonic() - began < 2.5


def test_connections_stay_open_between_requests_and_while_an_answer_takes_longer(small: Running) -> None:
    connection = http.client.HTTPConnection(*small.address, timeout=20)
    body = json.dumps(GOOD | {"steps": 50, "size": "192x192"})
    for method, path, sent in (("GET", "/healthz", None), ("POST", "/v1/images/generations", body)) * 2:
        connection.request(method, path, sent, {"Content-Type": "application/json"})
        with connection.getresponse() as answer:
            assert answer.status == 200
            answer.read()
        kept = connection.sock
        time.sleep(0.2)
        assert connection.sock is kept is not None
    connection.close()


def test_connections_beyond_the_limit_are_told_to_come_again(server: Running) -> None:
    with running(Context(service=server.context.service, settings=Settings(connections=3))) as few:
        held = [socket.create_connection(few.address, 20) for _ in range(3)]
        for sent in (b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            status, headers, body = head_and_body(talk(few.address, sent))
            assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
            assert (body["what"], body["expected"]) == ("too many connections", "at most 3")
        held.pop().close()
        wait_until(lambda: few.get("/healthz").status_code == 200)
        for one in held:
            one.close()


def test_a_client_that_is_gone_before_its_body_is_complete(server: Running) -> None:
    with socket.create_connection(server.address) as connection:
        connection.sendall(GENERATIONS + b"Content-Length: 500\r\n\r\n{")
    time.sleep(0.1)
    assert not server.context.service.jobs()


def test_lengths_that_contradict_are_refused(server: Running) -> None:
    for lies in (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"Content-Length: -1\r\n", b"Content-Length: x\r\n"):
        assert head_and_body(talk(server.address, GENERATIONS + lies + b"\r\n{}    "))[0] == 400
    hidden = b"GET /admin/queue HTTP/1.1\r\nHost: localhost\r\n\r\n"
    both = b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert head_and_body(talk(server.address, GENERATIONS + both + hidden))[0] == 400
    # What comes beyond a body's length is a request of its own, or none.
    beyond = talk(server.address, GENERATIONS + b"Content-Length: 2\r\n\r\n{}garbage\r\n\r\n")
    assert head_and_body(beyond)[0] == 400


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"{", "not JSON"),
        (b"", "missing"),
        (b"[]", "valid"),
        (b"null", "cannot be used"),
        (b'"text"', "valid"),
        (b'{"prompt": "\xff"}', "not JSON"),
        (b'{"prompt": "\\ud800"}', "surrogate"),
        (b'{"prompt": "x", "guidance": NaN}', "NaN"),
        (b'{"prompt": "x", "guidance": -Infinity}', "Infinity"),
        (b'{"prompt": "x", "guidance": 1e999}', "guidance"),
        (b'{"prompt": "x", "prompt": "y"}', "twice"),
        (b"[" * 100_000, "nested"),
        (b'{"prompt":' * 100_000, "nested"),
        (b'{"prompt": "x", "steps": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"prompt": 5}', "prompt"),
        (b'{"prompt": ["x"]}', "prompt"),
        (b'{"prompt": "x", "seed": 1.5}', "seed"),
        (b'{"prompt": "x", "n": "1"}', "n cannot"),
    ],
)
def test_json_that_is_none(server: Running, body: bytes, part: str) -> None:
    answer = server.post("/v1/images/generations", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert part in answer.json()["error"]["message"]


def test_json_that_does_not_say_so_is_no_json(server: Running) -> None:
    """A page of another site can send text unasked, and forms, but no JSON."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = server.post("/v1/images/generations", content=json.dumps(GOOD), headers={"Content-Type": kind})
        assert answer.status_code == 400, kind


def test_a_prompt_of_ten_megabytes(server: Running) -> None:
    answer = server.post("/v1/images/generations", json=GOOD | {"prompt": "x" * 10**7})
    assert (answer.status_code, answer.json()["error"]["message"].split("\n")[0]) == (
        400,
        "too many characters of prompts",
    )


PROMPT = ("prompt", b"a red circle", None)
FILE = ("image", picture(), "a.png")


@pytest.mark.parametrize(
    ("content", "kind", "status", "part"),
    [
        (b"", "multipart/form-data; boundary=b", 400, "image is missing"),
        (b"x", "multipart/form-data", 400, "boundary"),
        (b"\x00\xff garbage", "multipart/form-data; boundary=b", 400, ""),
        (form(PROMPT), "multipart/form-data; boundary=b", 400, "image is missing"),
        (form(FILE), "multipart/form-data; boundary=b", 400, "prompt is missing"),
        (form(PROMPT, FILE)[:-40], "multipart/form-data; boundary=b", 400, ""),
        (form(PROMPT, FILE), "multipart/form-data; boundary=c", 400, ""),
        (form(PROMPT, FILE), "application/json", 400, "not JSON"),
        (form(PROMPT, FILE), "application/octet-stream", 415, "form"),
        (form(PROMPT, PROMPT, FILE), "multipart/form-data; boundary=b", 400, "twice"),
        (form(PROMPT, *[FILE] * 2), "multipart/form-data; boundary=b", 400, "more than one image"),
        (form(PROMPT, *[FILE] * 9), "multipart/form-data; boundary=b", 400, "Too many files"),
        (form(PROMPT, FILE, *[("seed", b"1", None)] * 200), "multipart/form-data; boundary=b", 400, "Too many fields"),
        (form(PROMPT, FILE, ("user", b"x" * 2**21, None)), "multipart/form-data; boundary=b", 400, "maximum size"),
        (form(PROMPT, ("image", b"/etc/passwd", None)), "multipart/form-data; boundary=b", 400, "no path or address"),
        (form(PROMPT, ("image", b"", "a.png")), "multipart/form-data; boundary=b", 400, "picture"),
        (form(PROMPT, ("image", picture()[:60], "a.png")), "multipart/form-data; boundary=b", 400, "picture"),
        (form(PROMPT, ("image", png_of(30_000, 30_000), "a.png")), "multipart/form-data; boundary=b", 400, ""),
        (form(PROMPT, ("image", png_of(6000, 6000), "a")), "multipart/form-data; boundary=b", 400, "image is too"),
        (form(PROMPT, FILE, ("mask", png_of(6000, 6000), "a")), "multipart/form-data; boundary=b", 400, "mask is too"),
        (form(PROMPT, FILE, ("guidance", b"NaN", None)), "multipart/form-data; boundary=b", 400, "guidance"),
        (form(PROMPT, FILE, ("a/../b", b"x", "c")), "multipart/form-data; boundary=b", 400, "unknown field"),
        (b"prompt=x&image=y", "application/x-www-form-urlencoded", 415, "form"),
    ],
)  # fmt: skip
def test_forms_that_are_none(server: Running, content: bytes, kind: str, status: int, part: str) -> None:
    answer = server.post("/v1/images/edits", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status, answer.text
    assert part in answer.json()["error"]["message"]


def test_all_bodies_together_have_a_limit(small: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SHARE", 1)
    with socket.create_connection(small.address, timeout=20) as first:
        first.sendall(GENERATIONS + b"Content-Length: 60000\r\n\r\n" + b" " * 50_000)
        time.sleep(0.1)
        busy = small.post("/v1/images/generations", json=GOOD | {"negative_prompt": "x" * 19_000})
        assert busy.status_code == 503
        assert busy.headers["Retry-After"] == "5"
    time.sleep(0.6)
    assert small.post("/v1/images/generations", json=GOOD).status_code == 200


@pytest.mark.parametrize("after", [0.0, 0.01, 0.05, 0.1, 0.2])
def test_connections_cut_at_every_stage(server: Running, after: float) -> None:
    body = json.dumps(GOOD | {"steps": 290, "size": "192x192", "stream": True, "partial_images": 3}).encode()
    with socket.create_connection(server.address) as connection:
        connection.sendall(GENERATIONS + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        time.sleep(after)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, and no goodbye
    server.wait_until_idle()
