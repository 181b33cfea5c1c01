"""What nobody should send: each of these must be refused by a 4xx, and nothing else must notice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from benchmarks.soaking.mix import A1111, BOUNDARY, EDIT, IMAGE, OPENAI, TEXT, Wish, form, hole, picture, wish
from benchmarks.soaking.wire import Call


def broken(random: Random, number: int) -> tuple[str, bytes]:
    """A request that is wrong, by its name, as bytes.

    Args:
        random: of all chance.
        number: of the request.
    """
    name = random.choice(sorted(KINDS))
    return name, KINDS[name](random, number)


def _changed(openai: dict[str, Any], a1111: dict[str, Any] | None = None) -> Callable[[Random, int], bytes]:
    """A request for pictures of text, with other values; A1111's are the same where they are not given."""

    def make(random: Random, number: int) -> bytes:
        asked = wish(random, number, task=TEXT)
        fields = openai if a1111 is None or asked.api == OPENAI else a1111
        call = asked.call()
        return replace(call, body=json.dumps(json.loads(call.body) | fields).encode()).encode()

    return make


def _body(change: Callable[[bytes], bytes]) -> Callable[[Random, int], bytes]:
    """A request for pictures of text, its body changed."""

    def make(random: Random, number: int) -> bytes:
        call = wish(random, number, task=TEXT).call()
        return replace(call, body=change(call.body)).encode()

    return make


def _edit(change: Callable[[Call, Wish], Call]) -> Callable[[Random, int], bytes]:
    """A form with a picture, changed."""

    def make(random: Random, number: int) -> bytes:
        asked = wish(random, number, task=EDIT, api=OPENAI)
        return change(asked.call(), asked).encode()

    return make


def _files(**files: bytes) -> Callable[[Call, Wish], Call]:
    def change(call: Call, asked: Wish) -> Call:
        good = {"image": picture(asked.size, 0), "mask": hole(asked.size)}
        return replace(call, body=form({"prompt": "a red circle"}, good | files))

    return change


def _init_images(*shown: str) -> Callable[[Random, int], bytes]:
    def make(random: Random, number: int) -> bytes:
        call = wish(random, number, task=IMAGE, api=A1111).call()
        return replace(call, body=json.dumps(json.loads(call.body) | {"init_images": shown}).encode()).encode()

    return make


def _call(method: str, path: str) -> Callable[[Random, int], bytes]:
    return lambda _, number: Call(method=method, path=path, headers={"X-Request-Id": f"soak-{number}"}).encode()


def _without(name: str) -> Callable[[Call, Wish], Call]:
    def change(call: Call, _: Wish) -> Call:
        return replace(call, headers={key: text for key, text in call.headers.items() if key != name})

    return change


KINDS: dict[str, Callable[[Random, int], bytes]] = {
    "no HTTP": lambda *_: b"\x16\x03\x01 hello\r\n\r\n",
    "a path that is not there": _call("POST", "/v1/images/variations"),
    "a method that is not there": _call("PUT", "/v1/images/generations"),
    "no body": _body(lambda _: b""),
    "half of the JSON": _body(lambda body: body[: len(body) // 2]),
    "a list": _body(lambda body: b"[" + body + b"]"),
    "no UTF-8": _body(lambda body: body.replace(b"a", b"\xff")),
    "deep JSON": _body(lambda _: b'{"prompt": ' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
    "NaN": _body(lambda body: body.replace(b'"prompt"', b'"steps": NaN, "prompt"')),
    "an unknown field": _changed({"number_of_cats": 3}),
    "a wrong type": _changed({"steps": "many"}),
    "a prompt of another type": _changed({"prompt": {"text": "a red circle"}}),
    "a billion steps": _changed({"steps": 10**9}),
    "no steps": _changed({"steps": 0}),
    "half a seed": _changed({"seed": 7.5}),
    "an unknown sampler": _changed({"sampler": "fastest"}, {"sampler_name": "fastest"}),
    "a prompt that is too long": _changed({"prompt": "circle " * 40_000}),
    "a size that no engine takes": _changed({"size": "1024x1024"}, {"width": 1024}),
    "a form without its end": _edit(lambda call, _: replace(call, body=call.body[: len(call.body) * 2 // 3])),
    "a form without a boundary": _edit(
        lambda call, _: replace(call, headers={**call.headers, "Content-Type": "multipart/form-data"})
    ),
    "a form that says nothing of itself": _edit(_without("Content-Type")),
    "a form with another boundary": _edit(
        lambda call, _: replace(call, body=call.body.replace(BOUNDARY.encode(), b"another"))
    ),
    "half of a picture": _edit(_files(image=picture((192, 192), 3)[:300])),
    "text as a picture": _edit(_files(image=b"a picture of a red circle")),
    "a mask of another size": _edit(_files(mask=hole((320, 320)))),
    "a file's name as a picture": _init_images("file:///etc/passwd"),
    "half of a picture in base64": _init_images("iVBORw0KGgoAAAANSUhEUgAAAGAAAABgCAIAAABt"),
    "no picture": _init_images(),
}
"""By name; made of all chance, and the number of the request."""
