"""PNG files and their parameters, read back with a chunk reader made for these tests, Pillow and an XML parser."""

from __future__ import annotations

import io
import json
import string
import struct
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime.png import TEXT_LIMIT, Parameters, encode_png, format_parameters, parse_parameters, read_png

SETTINGS: dict[str, str | int | float | bool | None] = {
    "Steps": 30,
    "Sampler": "Euler",
    "CFG scale": 5.0,
    "Seed": 7,
    "Size": "128x128",
    "Model": "sdxl-shapes",
    "Model hash": "abcdef1234",
    "Version": "sdxl-trt 0.1.0",
}
LINE = (
    "Steps: 30, Sampler: Euler, CFG scale: 5, Seed: 7, Size: 128x128, Model: sdxl-shapes, Model hash: abcdef1234, "
    "Version: sdxl-trt 0.1.0"
)
SMALL = np.zeros((1, 1, 3), np.uint8)

names = st.text(string.ascii_letters + string.digits + "_ -/", min_size=1, max_size=12).map(lambda name: "k" + name)
any_text = st.text(max_size=60) | st.text('"\\ ,:\n[]{}\0 é😀', max_size=60)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
line = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=30)
tricky = st.sampled_from(
    ["Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1", "negative prompt: x", 'a "b", c: d', ""]
)
plain_text = (
    st.lists((line | tricky).map(str.strip), max_size=4)
    .map(lambda lines: "\n".join(lines).strip())
    .filter(lambda text: not any(part.startswith("Negative prompt:") for part in text.split("\n")))
)


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, found = 8, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert int.from_bytes(data[at + 8 + size : at + 12 + size], "big") == zlib.crc32(kind + body)
        found.append((kind, body))
        at += 12 + size
    assert (found[0][0], found[-1]) == (b"IHDR", (b"IEND", b""))
    return found


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_texts(*extra: bytes) -> bytes:
    """A one-pixel PNG file with these chunks before its end."""
    file = io.BytesIO()
    Image.fromarray(SMALL).save(file, format="PNG")
    data = file.getvalue()
    end = data.rindex(b"IEND") - 4
    return data[:end] + b"".join(extra) + data[end:]


def read_back(folder: Path, data: bytes) -> Parameters:
    path = folder / "picture.png"
    path.write_bytes(data)
    return read_png(path)


def random_picture(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_pixels_and_texts_as_pillow_and_a_chunk_reader_see_them(tmp_path: Path) -> None:
    image = random_picture(24, 40)
    made = Parameters(prompt="a red circle", negative_prompt="blurry", settings=SETTINGS)
    data = encode_png(image, made)
    expected = f"a red circle\nNegative prompt: blurry\n{LINE}"

    with Image.open(io.BytesIO(data)) as opened:
        np.testing.assert_array_equal(np.asarray(opened), image)
        assert opened.mode == "RGB"
        assert opened.info["parameters"] == expected

    found = chunks_of(data)
    texts = [(kind, body) for kind, body in found if kind in (b"tEXt", b"zTXt", b"iTXt")]
    assert [body.split(b"\0")[0] for _, body in texts] == [b"XML:com.adobe.xmp", b"parameters", b"sdxl-trt"]
    assert texts[1] == (b"tEXt", b"parameters\0" + expected.encode("latin-1"))
    own = {"prompt": "a red circle", "negative_prompt": "blurry", "settings": SETTINGS}
    assert texts[2][0] == b"iTXt"
    assert texts[2][1].startswith(b"sdxl-trt\0\0\0\0\0")
    assert json.loads(texts[2][1].split(b"\0", 5)[5]) == own
    assert [kind for kind, _ in found].index(b"IDAT") > 3, "texts stand before the pixels"
    assert read_back(tmp_path, data) == made


def test_xmp_says_that_a_model_made_it() -> None:
    packets = [body for kind, body in chunks_of(encode_png(SMALL, Parameters(prompt=""))) if b"adobe" in body]
    assert len(packets) == 1, "XMP part 3: no more than one packet in a file"
    header, packet = packets[0][:22], packets[0][22:]
    assert header == b"XML:com.adobe.xmp\0\0\0\0\0", (
        "XMP part 3, table 'PNG': uncompressed, no language, no translation"
    )
    text = packet.decode()
    assert text.startswith('<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>')
    assert text.endswith('<?xpacket end="r"?>')
    rdf = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
    root = ElementTree.fromstring(text)
    assert root.tag == "{adobe:ns:meta/}xmpmeta"
    description = root.find(f"{rdf}RDF/{rdf}Description")
    assert description is not None
    assert description.attrib == {f"{rdf}about": ""}
    source = description.findtext("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
    assert source == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def test_same_input_gives_the_same_bytes() -> None:
    made = Parameters(prompt="猫 😀", settings=SETTINGS)
    image = random_picture(32, 32)
    assert encode_png(image, made) == encode_png(image.copy(), made)
    assert encode_png(np.asfortranarray(image), made) == encode_png(image, made)
    assert encode_png(image[::-1], made) == encode_png(image[::-1].copy(), made)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), SMALL[:0]],
    ids=["float32", "grey", "alpha", "empty"],
)
def test_other_arrays_are_refused(image: Any) -> None:
    with pytest.raises(UsageError, match=r"uint8 \[height, width, 3\]") as caught:
        encode_png(image, Parameters(prompt=""))
    assert str(image.dtype) in caught.value.got


@settings(deadline=None, max_examples=300)
@given(prompt=any_text, negative=any_text, values=st.dictionaries(names, scalars | any_text, max_size=6))
def test_our_own_files_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, prompt: str, negative: str, values: dict[str, Any]
) -> None:
    made = Parameters(prompt=prompt, negative_prompt=negative, settings=values)
    back = read_back(tmp_path_factory.getbasetemp(), encode_png(SMALL, made))
    assert back == made
    assert list(back.settings) == list(values)
    assert [type(value) for value in back.settings.values()] == [type(value) for value in values.values()]


@pytest.mark.parametrize(
    ("prompt", "negative"),
    [
        ("a cat\nNegative prompt: a dog", "a bird"),
        ("a cat\nSteps: 1, Sampler: Euler, CFG scale: 2, Seed: 3", ""),
        ("  a cat \r\n\n ", "\n"),
        ("[" * 40 + "{" * 40 + "a cat" + "]" * 40, '"\\'),
        ("nul \0 and bell \a", "\u2028\x85"),
    ],
)
def test_prompts_that_webui_text_cannot_hold_come_back_exactly(tmp_path: Path, prompt: str, negative: str) -> None:
    made = Parameters(prompt=prompt, negative_prompt=negative, settings=SETTINGS)
    data = encode_png(SMALL, made)
    assert read_back(tmp_path, data) == made
    text = Image.open(io.BytesIO(data)).info["parameters"]
    assert "\0" not in text
    assert parse_parameters(text)[2] == parse_parameters(LINE)[2], "the settings are found whatever the prompt is"


@settings(deadline=None, max_examples=500)
@given(
    prompt=plain_text,
    negative=plain_text,
    values=st.dictionaries(names, line | tricky | st.text(',: "\n\\', max_size=8), min_size=3, max_size=6),
)
def test_webui_text_holds_all_but_the_exceptions(prompt: str, negative: str, values: dict[str, str]) -> None:
    assert parse_parameters(format_parameters(prompt, negative, values)) == (prompt, negative, values)


def test_values_are_written_and_quoted_as_webui_does() -> None:
    text = format_parameters(
        "p",
        "",
        {"Steps": 30, "CFG scale": 7.5, "Guidance": 5.0, "Tiling": True, "Absent": None, "Lora hashes": "a: 1, b: 2"}
        | {
            "Two lines": 'say "x"\né',
            "Empty": "",
            "Spaces": " x ",
            "Quoted": '"x"',
            "Inch": '5" wide',
            "New/old-name": "🎨",
        },
    )
    assert text == (
        'p\nSteps: 30, CFG scale: 7.5, Guidance: 5, Tiling: True, Lora hashes: "a: 1, b: 2", '
        'Two lines: "say \\"x\\"\\né", Empty: "", Spaces: " x ", Quoted: "\\"x\\"", Inch: 5" wide, New/old-name: 🎨'
    )


def test_other_tools_texts_are_read_as_webui_reads_them() -> None:
    text = (
        "\n  a (red:1.2) circle, <lora:shapes:0.8>  \n\nNegative prompt:  blurry,\nNegative prompt: ugly\n"
        'Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 965400086, Size: 512x768, TI hashes: "a: b1, c: d2", '
        'Denoising strength: 0.7, Version: v1.10.1-1-g0000000, bare, Half quoted: "x\n'
    )
    assert parse_parameters(text) == (
        "a (red:1.2) circle, <lora:shapes:0.8>\n",
        "blurry,\nugly",
        {
            "Steps": "20",
            "Sampler": "DPM++ 2M Karras",
            "CFG scale": "7",
            "Seed": "965400086",
            "Size": "512x768",
            "TI hashes": "a: b1, c: d2",
            "Denoising strength": "0.7",
            "Version": "v1.10.1-1-g0000000",
            "Half quoted": '"x',
        },
    )
    assert parse_parameters("only a prompt, steps: 3") == ("only a prompt, steps: 3", "", {})
    assert parse_parameters("") == ("", "", {})


@pytest.mark.parametrize("name", ["A", "", " x", "a:b", "a,b", "two\nlines", "-x", "größe (px)"])
def test_names_of_settings_that_readers_miss_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be written") as caught:
        format_parameters("p", "", {**SETTINGS, name: 1})
    assert repr(name) in caught.value.got


@pytest.mark.parametrize(
    ("made", "got"),
    [
        (Parameters(prompt="\ud800"), "surrogate"),
        (Parameters(prompt="", settings={"xx": "\udfff"}), "surrogate"),
        (Parameters(prompt="x" * (TEXT_LIMIT + 1)), "bytes"),
        (Parameters(prompt="\1" * (TEXT_LIMIT // 4)), "bytes"),
        (Parameters(prompt="", settings={"xx": float("nan")}), "not JSON compliant"),
        (Parameters(prompt="", settings={"xx": object()}), "not JSON serializable"),  # type: ignore[dict-item]
    ],
    ids=["prompt", "setting", "long", "long when escaped", "NaN", "object"],
)
def test_what_cannot_be_written_is_refused(made: Parameters, got: str) -> None:
    with pytest.raises(UsageError, match="cannot be written") as caught:
        encode_png(SMALL, made)
    assert got in caught.value.got


def test_the_longest_text_can_be_read(tmp_path: Path) -> None:
    overhead = len('{"prompt": "", "negative_prompt": "", "settings": {}}')
    made = Parameters(prompt="é" + "x" * (TEXT_LIMIT - overhead - 2))
    assert read_back(tmp_path, encode_png(SMALL, made)) == made
    with pytest.raises(UsageError):
        encode_png(SMALL, Parameters(prompt=made.prompt + "x"))


@pytest.mark.parametrize(
    "made",
    [
        chunk(b"tEXt", b"parameters\0caf\xe9\n" + LINE.encode()),
        chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"caf\xe9\n" + LINE.encode())),
        chunk(b"iTXt", b"parameters\0\0\0de\0Werte\0" + f"café\n{LINE}".encode()),
        chunk(b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(f"café\n{LINE}".encode())),
        chunk(b"tEXt", b"parameters\0old") + chunk(b"tEXt", b"parameters\0caf\xe9\n" + LINE.encode()),
        chunk(b"tEXt", b"workflow\0" + b"x" * (2 * TEXT_LIMIT))
        + chunk(b"iTXt", b"parameters\0\0\0\0\0caf\xc3\xa9\n" + LINE.encode()),
    ],
    ids=["tEXt", "zTXt", "iTXt", "iTXt packed", "two", "beside a large text of another tool"],
)
def test_files_of_other_tools(tmp_path: Path, made: bytes) -> None:
    data = with_texts(made)
    back = read_back(tmp_path, data)
    assert (back.prompt, back.negative_prompt) == ("café", "")
    assert back.settings["CFG scale"] == "5"
    if len(made) < TEXT_LIMIT:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            assert parse_parameters(opened.info["parameters"]) == ("café", "", back.settings)


def test_our_own_text_is_read_first(tmp_path: Path) -> None:
    own = b'sdxl-trt\0\0\0\0\0{"prompt": "ours"}'
    other = b"parameters\0theirs\n" + LINE.encode()
    for order in ([chunk(b"iTXt", own), chunk(b"tEXt", other)], [chunk(b"tEXt", other), chunk(b"iTXt", own)]):
        assert read_back(tmp_path, with_texts(*order)) == Parameters(prompt="ours")


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (b"", "does not start"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "does not start"),
        (with_texts(), "without a text"),
        (with_texts()[:-12], "ends too early"),
        (with_texts(b"\xff\xff\xff\xffzzzz"), "ends too early"),
        (with_texts(chunk(b"iTXt", b"sdxl-trt\0\0\0\0\0{")), "not JSON"),
        (with_texts(chunk(b"iTXt", b'sdxl-trt\0\0\0\0\0{"prompt": 3}')), "prompt"),
        (with_texts(chunk(b"iTXt", b'sdxl-trt\0\0\0\0\0{"prompt": "", "settings": {"a": 1e999}}')), "settings"),
        (with_texts(chunk(b"iTXt", b"sdxl-trt\0\0\0\0\0" + b"[" * 10**5)), "nested"),
        (with_texts(chunk(b"iTXt", b"sdxl-trt\0\0\0\0\0\xff")), "utf-8"),
        (with_texts(chunk(b"zTXt", b"parameters\0\0junk")), "header"),
        (with_texts(chunk(b"zTXt", b"parameters\0\1" + zlib.compress(b"x"))), "cannot be unpacked"),
        (with_texts(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"x" * 99)[:-3])), "cannot be unpacked"),
        (with_texts(chunk(b"zTXt", b"parameters\0")), "cannot be unpacked"),
        (with_texts(chunk(b"tEXt", b"parameters\0x")[:-1] + b"\0"), "checksum"),
        (with_texts(chunk(b"tEXt", b"parameters\0" + b"x" * 2 * TEXT_LIMIT)), "bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_broken_files_are_refused(tmp_path: Path, data: bytes, got: str) -> None:
    with pytest.raises(UsageError, match="cannot read how") as caught:
        read_back(tmp_path, data)
    assert got in caught.value.got
    assert caught.value.expected
    assert caught.value.fix


def test_no_file_is_one_clear_error(tmp_path: Path) -> None:
    for path, got in ((tmp_path / "none.png", "No such file"), (tmp_path, "directory")):
        with pytest.raises(UsageError) as caught:
            read_png(path)
        assert got in caught.value.got


def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path: Path) -> None:
    data = encode_png(SMALL, Parameters(prompt="x", settings=SETTINGS))
    for size in range(len(data) - 4):  # the last four are the checksum of nothing
        with pytest.raises(UsageError):
            read_back(tmp_path, data[:size])


def test_memory_is_bounded(tmp_path: Path) -> None:
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(200)) + packer.flush()
    files = {
        "zTXt bomb": with_texts(chunk(b"zTXt", b"parameters\0\0" + bomb)),
        "iTXt bomb": with_texts(chunk(b"iTXt", b"parameters\0\1\0\0\0" + bomb)),
    }
    files["many"] = with_texts(*[chunk(b"tEXt", b"parameters\0" + bytes([65]) * TEXT_LIMIT)] * 30)
    for name, data in files.items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(data)
        tracemalloc.start()
        try:
            if name == "many":
                read_png(path)
            else:
                with pytest.raises(UsageError, match="unpacks to more than"):
                    read_png(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        print(f"{name}: file of {len(data)} bytes, peak measured {peak} bytes, required {16 * TEXT_LIMIT}")
        assert peak < 16 * TEXT_LIMIT

    sparse = tmp_path / "sparse.png"
    with sparse.open("wb") as file:
        file.write(with_texts()[:-12] + b"\x7f\xff\xff\xfftEXtparameters\0")
        file.truncate(2**31)
    with pytest.raises(UsageError, match="a text of 2147483647 bytes"):
        read_png(sparse)


@pytest.mark.parametrize("piece", ["a", "a ", "-", 'aa:"\\",', 'aa:"', "aa:", "Negative prompt:\n", " "])
def test_hostile_texts_take_linear_time(piece: str) -> None:
    started = time.perf_counter()
    parse_parameters(piece * (TEXT_LIMIT // len(piece)))
    seconds = time.perf_counter() - started
    print(f"{piece!r}: measured {seconds:.2f} s, required 10 s (quadratic time would be hours)")
    assert seconds < 10
