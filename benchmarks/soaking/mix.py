"""What the stream asks for: pictures of every kind, through both APIs. All chance is the caller's."""

from __future__ import annotations

import base64
import functools
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.soaking.wire import Call
from sdxl_trt.spec.profile import format_size

Size = tuple[int, int]
"""Width and height in pixels."""

SIZES: Final = ((96, 96), (128, 96), (96, 128), (128, 128), (160, 160), (192, 192))
SAMPLERS: Final = ("Euler", "Euler a", "Heun", "DPM++ 2M", "DPM++ SDE", "UniPC", "DDIM", "DEIS")
GUIDANCES: Final = (1.0, 3.0, 5.0, 7.5)
MOST_STEPS: Final = 30
STRENGTH: Final = 0.6
"""Of what starts from a picture, which therefore has two steps at least."""
TEXT, IMAGE, EDIT = "text", "image", "edit"
OPENAI, A1111 = "/v1", "/sdapi/v1"
BOUNDARY: Final = "a-boundary-that-is-in-no-picture"
_SHAPES: Final = ("circle", "square", "triangle", "star")
_COLOURS: Final = ("red", "green", "blue", "yellow", "purple", "orange", "black")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A request that is well formed."""

    number: int
    """No two are alike in it."""
    api: str
    task: str
    prompt: str
    steps: int
    guidance: float
    sampler: str
    size: Size
    seed: int
    """Of the first picture; the next ones count up."""
    count: int
    kind: str
    """Of files: 'png', 'jpeg' or 'webp'."""
    stream: bool
    partials: int
    """Of each picture, in a stream."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further fields."""

    @property
    def id(self) -> str:
        """As operators name the request."""
        return f"soak-{self.number}"

    @property
    def seeds(self) -> list[int]:
        """Of its pictures."""
        return [self.seed + index for index in range(self.count)]

    def call(self) -> Call:
        """The request over HTTP."""
        if self.api == A1111:
            return self._json("txt2img" if self.task == TEXT else "img2img", self._a1111())
        if self.task == TEXT:
            return self._json("images/generations", self._openai())
        files = {"image": picture(self.size, self.seed % 16)} | ({"mask": hole(self.size)} if self.task == EDIT else {})
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "X-Request-Id": self.id}
        path = f"{self.api}/images/edits"
        return Call(method="POST", path=path, headers=headers, body=form(self._openai(), files))

    def _json(self, name: str, fields: Mapping[str, Any]) -> Call:
        headers = {"Content-Type": "application/json", "X-Request-Id": self.id}
        return Call(method="POST", path=f"{self.api}/{name}", headers=headers, body=json.dumps(fields).encode())

    def _openai(self) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "prompt": self.prompt,
            "n": self.count,
            "size": format_size(self.size),
            "steps": self.steps,
            "guidance": self.guidance,
            "sampler": self.sampler,
            "seed": self.seed,
            "output_format": self.kind,
        }
        fields |= {} if self.task == TEXT else {"strength": STRENGTH}
        fields |= {"stream": True, "partial_images": self.partials} if self.stream else {}
        return fields | dict(self.more)

    def _a1111(self) -> dict[str, Any]:
        width, height = self.size
        fields: dict[str, Any] = {
            "prompt": self.prompt,
            "batch_size": self.count,
            "width": width,
            "height": height,
            "steps": self.steps,
            "cfg_scale": self.guidance,
            "sampler_name": self.sampler,
            "seed": self.seed,
        }
        if self.task == TEXT:
            return fields
        shown = base64.b64encode(picture(self.size, self.seed % 16)).decode()
        fields |= {"init_images": [shown], "denoising_strength": STRENGTH}
        if self.task == EDIT:
            fields |= {"mask": base64.b64encode(hole(self.size, white=True)).decode(), "inpaint_full_res": False}
        return fields | dict(self.more)


def wish(random: Random, number: int, **fixed: Any) -> Wish:
    """One of the mix.

    Args:
        random: of all chance.
        number: of the request.
        fixed: fields that are not left to chance.
    """
    api = fixed.get("api", random.choice((OPENAI, OPENAI, A1111)))
    task = fixed.get("task", random.choice((TEXT, TEXT, IMAGE, EDIT)))
    stream = api == OPENAI and random.random() < 0.3
    drawn: dict[str, Any] = {
        "api": api,
        "task": task,
        "prompt": f"a large {random.choice(_COLOURS)} {random.choice(_SHAPES)} on a white background",
        "steps": random.randint(1 if task == TEXT else 2, MOST_STEPS),
        "guidance": random.choice(GUIDANCES),
        "sampler": random.choice(SAMPLERS),
        "size": random.choice(SIZES),
        "seed": random.randrange(2**32 - 8),
        "count": random.choices((1, 2, 3), (8, 2, 1))[0],
        "kind": "png" if api == A1111 else random.choice(("png", "png", "jpeg", "webp")),
        "stream": stream,
        "partials": random.randrange(4) if stream else 0,
    }
    return Wish(number=number, **drawn | fixed)


def form(fields: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """A multipart form, as browsers write it.

    Args:
        fields: values that are written as text.
        files: pictures.
    """
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in fields.items()}
    parts = [f'; name="{name}"\r\n\r\n{text}'.encode() for name, text in texts.items()]
    parts += [
        f'; name="{name}"; filename="{name}.png"\r\nContent-Type: image/png\r\n\r\n'.encode() + data
        for name, data in files.items()
    ]
    start = f"--{BOUNDARY}\r\nContent-Disposition: form-data".encode()
    return b"".join(start + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()


@functools.cache
def picture(size: Size, look: int) -> bytes:
    """A PNG file to start from: a disc on a slope of colours.

    Args:
        size: of it.
        look: 0 to 15.
    """
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    shades = [columns * 255 // width, rows * 255 // height, np.full_like(rows, 16 * look)]
    image = Image.fromarray(np.stack(shades, axis=-1).astype(np.uint8))
    ImageDraw.Draw(image).ellipse((width // 4, height // 4, 3 * width // 4, 3 * height // 4), fill="white")
    return _png(image)


@functools.cache
def hole(size: Size, *, white: bool = False) -> bytes:
    """A mask as a PNG file: its middle is to be painted anew.

    Args:
        size: of it.
        white: the middle is white, as in A1111; else transparent, as OpenAI has it.
    """
    width, height = size
    image = Image.new("L", size, 0 if white else 255)
    ImageDraw.Draw(image).rectangle((width // 4, height // 4, 3 * width // 4, 3 * height // 4), 255 if white else 0)
    return _png(image if white else Image.merge("RGBA", [Image.new("L", size, 128)] * 3 + [image]))


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
