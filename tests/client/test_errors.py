"""The clients against a server that misbehaves: every failure is one clear error, and nothing is asked for twice."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hostile_registry import Handler, Hostile, hostile, on, times

from sdxl_trt.client import Busy, Client, Failed, Refused
from sdxl_trt.client.failures import error_of, read_complaint
from sdxl_trt.client.server import Body
from sdxl_trt.errors import TransferError, Unreachable, UnsupportedSize, UsageError

pytestmark = pytest.mark.timed

Ask = Callable[..., Any]

PATH = "/v1/images/generations"


def answers(body: bytes | dict[str, Any], status: int = 200, **headers: str) -> Any:
    """What the server says to whoever asks for pictures."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return on("POST", PATH, lambda handler: handler.reply(status, data, **headers))


def pictures(png: bytes, **more: Any) -> dict[str, Any]:
    return {"output_format": "png", "data": [{"b64_json": base64.b64encode(png).decode(), "seed": 7}], **more}


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | fields)}\n\n".encode()


def done(png: bytes, index: int = 0) -> bytes:
    encoded = base64.b64encode(png).decode()
    return event("image_generation.completed", b64_json=encoded, output_format="png", image_index=index, seed=index)


def address(server: Hostile) -> str:
    return f"http://{server.host}"


def generate(ask: Ask, server: Hostile, **options: Any) -> Any:
    return ask(address(server), "generate", "a red circle", options=options)


def stream(ask: Ask, server: Hostile, body: bytes, kind: str = "text/event-stream", **how: Any) -> Any:
    server.faults = [answers(body, Content_Type=kind, X_Request_Id="abc")]
    return ask(address(server), "stream", "a red circle", options={"timeout": 5}, **how)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(ask: Ask, server: Hostile, png: bytes, status: int) -> None:
    server.faults = [times(2, answers(b"", status, Retry_After="0")), answers(pictures(png))]
    assert generate(ask, server).seeds == (7,)
    assert len(server.requests) == 3


def test_not_before_it_says(ask: Ask, server: Hostile, png: bytes) -> None:
    server.faults = [times(1, answers(b"", 429, Retry_After="1")), answers(pictures(png))]
    started = time.monotonic()
    assert generate(ask, server).seeds == (7,)
    assert 1 <= time.monotonic() - started < 5


@pytest.mark.parametrize(("retries", "asked"), [(0, 1), (1, 2), (2, 3)])
def test_and_not_for_ever(ask: Ask, server: Hostile, retries: int, asked: int) -> None:
    message = "the queue is full\n  got: 256 requests that wait or run\n  expected: fewer of them\n  fix: ask again"
    body = {"error": {"message": message, "type": "rate_limit_error", "code": "busy", "param": None}}
    server.faults = [answers(body, 429, Retry_After="0", X_Request_Id="abc")]
    with pytest.raises(Busy) as raised:
        generate(ask, server, retries=retries)
    assert len(server.requests) == asked
    error = raised.value
    assert (error.what, error.got, error.expected, error.fix) == (
        *("the queue is full", "256 requests that wait or run"),
        *("fewer of them", "ask again"),
    )
    assert (error.retry_after, error.complaint.code, error.complaint.request_id) == (0.0, "busy", "abc")
    assert isinstance(error, Unreachable)


@pytest.mark.parametrize(("status", "after"), [(503, None), (429, "7200"), (500, "0"), (400, "0")])
def test_what_does_not_get_better_is_asked_once(ask: Ask, server: Hostile, status: int, after: str | None) -> None:
    server.faults = [answers(b"", status, **({"Retry_After": after} if after else {}))]
    with pytest.raises((Busy, Failed, Refused), match=str(status)):
        generate(ask, server)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Refused), (401, Refused), (404, Refused), (413, Refused), (500, Failed), (504, Failed), (499, Failed)],
)
def test_what_a_server_says_is_wrong(ask: Ask, server: Hostile, status: int, kind: type[Exception]) -> None:
    told = UnsupportedSize("no engine takes this size", got="8x8", expected="64x64 to\n 192x192", fix="size=64x64")
    body = {"error": {"message": str(told), "type": "x", "code": "unsupported_size", "param": "size"}}
    server.faults = [answers(body, status)]
    with pytest.raises(kind) as raised:
        generate(ask, server)
    assert str(raised.value) == str(told)
    complaint = raised.value.complaint  # type: ignore[attr-defined]
    assert (complaint.status, complaint.code, complaint.param) == (status, "unsupported_size", "size")
    assert complaint.parts["expected"] == told.expected
    assert isinstance(raised.value, UsageError if status < 499 else TransferError)


def test_what_operators_pages_say_is_wrong() -> None:
    told = UsageError("no request of that id waits or runs", got="'abc'", fix="see GET /admin/queue")
    complaint = read_complaint(404, {}, json.dumps(told.as_dict()).encode())
    assert str(error_of(complaint)) == str(told)


def test_nobody_there(ask: Ask) -> None:
    started = time.monotonic()
    with pytest.raises(Unreachable, match=r"cannot be reached[\s\S]*sdxl-trt serve"):
        ask("http://127.0.0.1:9", "generate", "")
    assert time.monotonic() - started < 2


def hang_up(handler: Handler) -> None:
    handler.connection.close()
    handler.close_connection = True


@pytest.mark.parametrize("answer", [hang_up, lambda handler: handler.reply(200, b'{"data": [', length=1000)])
def test_a_connection_that_is_cut(ask: Ask, server: Hostile, answer: Callable[[Handler], object]) -> None:
    server.faults = [on("POST", PATH, answer)]
    with pytest.raises(TransferError, match=r"broke[\s\S]*taken back"):
        generate(ask, server)
    assert len(server.requests) == 1


@pytest.mark.parametrize("begin", [False, True])
def test_a_server_that_says_nothing(ask: Ask, server: Hostile, begin: bool) -> None:
    def slow(handler: Handler) -> None:
        if begin:
            handler.reply(200, b'{"data": [', length=1000)
        time.sleep(1.5)

    server.faults = [on("POST", PATH, slow)]
    started = time.monotonic()
    with pytest.raises(TransferError, match=r"silent for too long|broke"):
        generate(ask, server, timeout=0.3)
    assert time.monotonic() - started < 1.4


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"data": {}}',
        b'{"data": [], "output_format": "png"}',
        b'{"data": [5], "output_format": "png"}',
        b'{"data": [{"b64_json": "!", "seed": 7}], "output_format": "png"}',
        b'{"data": [{"b64_json": "aGFsbG8=", "seed": 7}], "output_format": "png"}',
        b'{"data": [{"b64_json": "iVBORw0KGgo=", "seed": "7"}], "output_format": "png"}',
        b'{"data": [{"b64_json": "iVBORw0KGgo=", "seed": true}], "output_format": "png"}',
        b'{"data": [{"b64_json": "iVBORw0KGgo=", "seed": 7}], "output_format": "../png"}',
        b'{"data": [{"b64_json": "iVBORw0KGgo=", "seed": 7}], "output_format": ["png"]}',
        b'{"data": [{"b64_json": "iVBORw0KGgo=", "seed": NaN}], "output_format": "png"}',
        b'{"data": ' + b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_garbage(ask: Ask, server: Hostile, body: bytes) -> None:
    server.faults = [answers(body)]
    with pytest.raises(TransferError, match="cannot be read"):
        generate(ask, server)
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error": 5}', b'{"error": {"message": 5}}', b"\xff" * 100_000])
def test_garbage_as_an_error(ask: Ask, server: Hostile, body: bytes) -> None:
    server.faults = [answers(body, 400)]
    with pytest.raises(Refused, match=r"is not `sdxl-trt serve`[\s\S]*400"):
        generate(ask, server)


def test_a_damaged_picture_is_found_when_it_is_looked_at(ask: Ask, server: Hostile, png: bytes) -> None:
    server.faults = [answers(pictures(png[:60]))]
    (picture,) = generate(ask, server)
    assert picture.data == png[:60]
    with pytest.raises(TransferError, match="cannot be read"):
        _ = picture.image


def test_answers_without_end_are_not_kept() -> None:
    body = Body(10)
    assert body.add(b"12345")
    assert not body.add(b"678901")
    assert body.start == b"1234567890"
    with pytest.raises(TransferError, match="too large"):
        _ = body.whole


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed_and_the_key_goes_nowhere_else(ask: Ask, server: Hostile, status: int) -> None:
    with hostile() as other:
        server.faults = [answers(b"", status, Location=f"http://{other.host}{PATH}")]
        with pytest.raises(Failed, match=rf"{status}, to 'http://{other.host}[\s\S]*not followed"):
            generate(ask, server, api_key="secret")
        assert other.requests == []
    assert [each.authorization for each in server.requests] == ["Bearer secret"]


def test_what_the_server_answers_that_is_compressed_is_not_unpacked(ask: Ask, server: Hostile) -> None:
    server.faults = [answers(b"\x1f\x8b garbage", Content_Encoding="gzip")]
    with pytest.raises(TransferError, match="cannot be read"):
        generate(ask, server)


def test_a_stream(ask: Ask, server: Hostile, png: bytes) -> None:
    encoded = base64.b64encode(png).decode()
    fields = {"b64_json": encoded, "output_format": "png", "image_index": 1, "partial_image_index": 2}
    body = b": hello\n\n" + event("image_generation.partial_image", **fields) + event("later.version", new=True)
    partial, *both = stream(ask, server, body + done(png) + done(png, 1), n=2)
    assert (partial.index, partial.number, partial.data) == (1, 2, png)
    assert [(each.index, each.seed, each.data) for each in both] == [(0, 0, png), (1, 1, png)]


def test_a_stream_that_ends_early(ask: Ask, server: Hostile, png: bytes) -> None:
    with pytest.raises(TransferError, match=r"too early[\s\S]*1 pictures missing"):
        stream(ask, server, done(png), seed=[0, 1])
    with pytest.raises(TransferError, match="too early"):
        stream(ask, server, done(png)[:-30])


def test_a_stream_that_is_cut(ask: Ask, server: Hostile, png: bytes) -> None:
    body = done(png)
    server.faults = [
        on("POST", PATH, lambda h: h.reply(200, body[:-20], length=len(body), Content_Type="text/event-stream"))
    ]
    with pytest.raises(TransferError, match="broke"):
        ask(address(server), "stream", "")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "it broke\n  fix: ask again", "type": "server_error", "code": "run_error"}, Failed),
        ({"message": "the request was cancelled", "type": "invalid_request_error", "code": "cancelled"}, Failed),
        ({"message": "full", "type": "rate_limit_error", "code": "busy"}, Busy),
        ({"message": "no", "type": "invalid_request_error", "code": "usage_error"}, Refused),
        ({"type": "server_error"}, Failed),
        (None, Refused),
    ],
)
def test_an_error_in_a_stream(ask: Ask, server: Hostile, error: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind) as raised:
        stream(ask, server, event("error", error=error))
    assert raised.value.complaint.request_id == "abc"  # type: ignore[attr-defined]
    assert len(server.requests) == 1


@pytest.mark.parametrize("data", ["garbage", "[]", '{"type": "image_generation.completed"}'])
def test_garbage_in_a_stream(ask: Ask, server: Hostile, data: str) -> None:
    with pytest.raises(TransferError, match="cannot be read"):
        stream(ask, server, f"data: {data}\n\n".encode())


def test_no_stream(ask: Ask, server: Hostile) -> None:
    with pytest.raises(TransferError, match=r"does not[\s\S]*text/html"):
        stream(ask, server, b"<html>", "text/html")


def test_an_error_before_a_stream_is_as_any(ask: Ask, server: Hostile) -> None:
    server.faults = [answers({"error": {"message": "steps cannot be used", "code": "usage_error"}}, 400)]
    with pytest.raises(Refused, match="steps cannot be used"):
        ask(address(server), "stream", "")


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://a:99999", "http://a/?b=c", "https://me:secret@host"],
)
def test_addresses_that_cannot_be_used(url: str) -> None:
    with pytest.raises(UsageError, match="address cannot be used") as raised:
        Client(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["http://192.0.2.1", "http://127.0.0.1.example.com:8000"])
def test_a_key_does_not_go_to_another_machine_unencrypted(url: str) -> None:
    with pytest.raises(UsageError, match="unencrypted") as raised:
        Client(url, api_key="secret")
    assert "secret" not in str(raised.value)
    Client(url, api_key="secret", plain_http=True).close()
    Client(url.replace("http:", "https:"), api_key="secret").close()


@pytest.mark.parametrize("key", ["", "two words", "line\n", "ключ"])
def test_keys_that_cannot_be_sent(key: str) -> None:
    with pytest.raises(UsageError, match="cannot be sent"):
        Client("http://127.0.0.1", api_key=key)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": float("nan")}, {"retries": -1}])
def test_options_that_cannot_be_used(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="settings cannot be used"):
        Client("http://127.0.0.1", **options)
