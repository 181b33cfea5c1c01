"""What is sent: every field of the server's, values that it can read, and nothing else."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdxl_trt.client import calls
from sdxl_trt.client.inputs import mask_file, picture_file
from sdxl_trt.client.settings import EditSettings, Settings, to_form, to_json
from sdxl_trt.errors import ImageError, UnknownName, UsageError
from sdxl_trt.runtime.images.opening import open_image, open_transparency
from sdxl_trt.runtime.serve.http.openai_models import Edit, Generation

CLIENTS_OWN = {"prompt", "stream", "partial_images"}
"""Fields that arguments of methods stand for."""
WITHOUT_A_CHOICE = {"response_format", "background", "quality", "moderation", "style"}
"""Fields that the server takes one value of, for programs that send it."""


@pytest.mark.parametrize(("mine", "servers"), [(Settings, Generation), (EditSettings, Edit)])
def test_all_that_the_server_takes_can_be_sent(mine: type[Settings], servers: Any) -> None:
    sent = set(mine.__annotations__) - {"request_id"}
    assert sent == set(servers.model_fields) - CLIENTS_OWN - WITHOUT_A_CHOICE


def test_settings_as_the_server_reads_them() -> None:
    settings: Any = {
        "size": (96, 64),
        "crop_top_left": (0, 8),
        "seed": range(3),
        "guidance": (5, 1.5),
        "zero_snr": True,
        "steps": None,
        "negative_prompt": "",
    }
    fields = to_json("a ★", settings, Settings)
    assert fields == {
        "prompt": "a ★",
        "size": "96x64",
        "crop_top_left": "0,8",
        "seed": [0, 1, 2],
        "guidance": [5, 1.5],
        "zero_snr": True,
        "negative_prompt": "",
    }
    asked = Generation.model_validate(fields).to_request()
    assert (asked.size, asked.crop_top_left, asked.seed, asked.guidance) == ((96, 64), (0, 8), [0, 1, 2], [5, 1.5])
    form = to_form(fields)
    assert form["seed"] == ["0", "1", "2"]
    assert form["zero_snr"] == "true"
    assert Edit.model_validate(form).to_request() == asked


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("guidance", float("nan")),
        ("guidance", [1.0, float("inf")]),
        ("negative_prompt", "\ud800"),
        ("steps", np.int64(3)),
        ("sampler", object()),
    ],
)
def test_values_that_cannot_be_sent(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"{name} cannot be sent"):
        to_json("", {name: value}, Settings)


def test_unknown_settings_are_refused_by_name() -> None:
    with pytest.raises(UnknownName, match="'step': did you mean steps"):
        to_json("", {"step": 3}, Settings)
    with pytest.raises(UnknownName, match="mask_blur"):
        to_json("", {"mask_blur": 3.0}, Settings)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", "x" * 65, "a\n", "ü"])
def test_names_that_no_request_can_have(name: str) -> None:
    with pytest.raises(UsageError, match="called so"):
        calls.cancelling(name)
    with pytest.raises(UsageError, match="called so"):
        calls.generating("", {"request_id": name})


def test_a_request_has_the_name_that_it_is_given() -> None:
    body = calls.generating("", {"request_id": "mine:1"}).body
    assert body["headers"]["X-Request-Id"] == "mine:1"
    assert json.loads(body["content"]) == {"prompt": ""}


def test_a_mask_needs_a_picture() -> None:
    with pytest.raises(UsageError, match="mask needs image"):
        calls.streaming("", None, b"", 0, {})


def saved(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


SHADES = Image.linear_gradient("L").resize((32, 64))


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P"])
def test_a_mask_means_what_it_means_to_the_pipeline(tmp_path: Path, mode: str) -> None:
    mask = SHADES.convert(mode)
    (tmp_path / "mask.png").write_bytes(saved(mask))
    for source in (mask, saved(mask), tmp_path / "mask.png"):
        painted = open_transparency(mask_file(source))
        assert np.array_equal(np.asarray(painted), np.asarray(mask.convert("L")))


def test_a_mask_with_transparency_is_sent_as_it_is() -> None:
    data = saved(Image.merge("LA", (SHADES, SHADES)))
    assert mask_file(data) == data


def test_pictures_are_sent_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(SHADES, "JPEG", exif=exif)
    assert picture_file(turned) == turned
    opened = Image.open(io.BytesIO(turned))
    assert open_image(picture_file(opened)).size == open_image(turned).size == (64, 32)
    assert open_transparency(mask_file(turned)).size == (64, 32)


@pytest.mark.parametrize("source", [b"", b"garbage", Path("none.png"), Image.new("I", (8, 8)), Image.new("F", (8, 8))])
def test_masks_that_cannot_be_sent(source: Any) -> None:
    with pytest.raises(ImageError, match="mask cannot be sent"):
        mask_file(source)


@pytest.mark.parametrize("source", [Path("none.png"), Path("/"), Image.new("F", (8, 8)), "in.png", 5])
def test_pictures_that_cannot_be_sent(source: Any) -> None:
    with pytest.raises(ImageError, match="picture cannot be sent"):
        picture_file(source)


def test_it_needs_nothing_that_serves_or_makes_pictures() -> None:
    others = ("fastapi", "starlette", "uvicorn", "pydantic", "onnxruntime", "tensorrt", "tokenizers", "PIL", "click")
    program = f"import sys, sdxl_trt.client\nprint(*(n for n in {(*others, 'sdxl_trt.runtime')} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
