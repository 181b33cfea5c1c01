"""Opening and scaling pictures, against Pillow's and diffusers' own loading and VaeImageProcessor."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, picture
from PIL import Image, ImageFilter

from sdxl_trt.errors import ImageError, UnknownName, UsageError
from sdxl_trt.runtime.images import resizing
from sdxl_trt.runtime.images.opening import FORMATS, MOST_PIXELS, open_image, open_mask
from sdxl_trt.runtime.images.resizing import RESIZES, default_size, preprocess, resize

SIZES = [(64, 64), (8, 8), (127, 61), (1, 1), (3, 301), (300, 5), (129, 200), (640, 360)]
OPAQUE_MODES = ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "RGBX"]
WRITTEN = {"PNG": {}, "JPEG": {"quality": 95}, "WEBP": {"lossless": True}, "GIF": {}, "BMP": {}}


def assert_same(image: Image.Image, wanted: Image.Image) -> None:
    assert (image.mode, image.size) == (wanted.mode, wanted.size)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(wanted))


def png(width: int, height: int, packed: bytes = b"") -> bytes:
    """A PNG file that says it has this size, with these packed lines of RGB."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def refused(source: Any, got: str, opener: Any = open_image) -> ImageError:
    with pytest.raises(ImageError) as caught:
        opener(source)
    error = caught.value
    assert got in error.got
    assert error.expected
    assert error.fix
    assert isinstance(error, UsageError)
    return error


@pytest.mark.parametrize("mode", OPAQUE_MODES)
def test_opaque_images_are_what_diffusers_loads(mode: str) -> None:
    from diffusers.utils import load_image

    image = picture((37, 23), mode)
    assert_same(open_image(image), load_image(image))


@pytest.mark.parametrize("file_format", FORMATS)
def test_files_and_bytes(file_format: str, tmp_path: Path) -> None:
    from diffusers.utils import load_image

    data = encoded(picture((37, 23)), file_format, **WRITTEN[file_format])
    path = tmp_path / "no suffix"
    path.write_bytes(data)
    wanted = load_image(str(path))
    assert_same(open_image(path), wanted)
    assert_same(open_image(data), wanted)
    if file_format in ("PNG", "WEBP", "BMP"):
        assert_same(open_image(data), picture((37, 23)))
    assert type(open_image(path)) is Image.Image, "nothing is left to read from the file"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation(file_format: str, orientation: int, tmp_path: Path) -> None:
    from diffusers.utils import load_image

    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo"
    path.write_bytes(encoded(picture((40, 24)), file_format, exif=exif, **WRITTEN[file_format]))
    opened = open_image(path)
    assert opened.size == ((40, 24) if orientation < 5 else (24, 40))
    assert_same(opened, load_image(str(path)))
    assert_same(open_mask(path), opened)


@pytest.mark.parametrize("source", ["RGBA", "LA", "PA", "palette", "colour key", "RGBa"])
def test_alpha_is_laid_on_white(source: str) -> None:
    image = picture((31, 17), "RGBA")
    if source == "palette":
        image = Image.open(io.BytesIO(encoded(image.quantize(16), "PNG")))
        assert (image.mode, "transparency" in image.info) == ("P", True)
    elif source == "colour key":
        flat = Image.new("RGB", (31, 17), (9, 8, 7))
        flat.paste((200, 0, 0), (3, 4, 9, 9))
        image = Image.open(io.BytesIO(encoded(flat, "PNG", transparency=(9, 8, 7))))
    else:
        image = image.convert(source)
    layer = np.asarray(image.convert("RGBA")).astype(np.float64)
    share = layer[..., 3:] / 255
    wanted = share * layer[..., :3] + (1 - share) * 255
    error = np.abs(np.asarray(open_image(image)) - wanted).max()
    print(f"{source}: largest difference measured {error:.3f} of 255, required 0.51 (rounding)")
    assert error <= 0.51


def test_sixteen_bits_are_scaled() -> None:
    levels = np.arange(0, 65536, 16, np.uint16).reshape(64, 64)
    levels[-1, -1] = 65535
    wanted = np.round(levels / 257).astype(np.uint8)
    for source in (Image.fromarray(levels), encoded(Image.fromarray(levels), "PNG")):
        opened = np.asarray(open_image(source))
        np.testing.assert_array_equal(opened, np.repeat(wanted[..., None], 3, axis=2))
        np.testing.assert_array_equal(np.asarray(open_mask(source)), wanted)


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "MPO"])
def test_animations_give_their_first_frame(file_format: str) -> None:
    frames = [Image.new("RGB", (16, 8), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    error = np.abs(np.asarray(open_image(data)).astype(int) - np.asarray(frames[0])).max()
    assert error <= 1, "JPEG, in MPO, rounds"


def test_arrays() -> None:
    image = picture((31, 17))
    assert_same(open_image(np.asarray(image)), image)
    assert_same(open_image(np.asarray(image.convert("L"))), image.convert("L").convert("RGB"))
    assert_same(open_image(np.asarray(picture((31, 17), "RGBA"))), open_image(picture((31, 17), "RGBA")))
    marked = np.asarray(image.convert("L")) > 99
    assert_same(open_mask(marked), Image.fromarray(marked * np.uint8(255)))


def test_the_callers_image_is_left_alone() -> None:
    image = Image.open(io.BytesIO(encoded(picture((16, 8)), "PNG")))
    opened = open_image(image)
    opened.paste("red", (0, 0, 16, 8))
    assert_same(image, picture((16, 8)))


@pytest.mark.parametrize(
    ("source", "got"),
    [
        (b"", "another format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "another format"),
        (encoded(picture((9, 9)), "TIFF"), "another format"),
        (encoded(picture((9, 9)), "PPM"), "another format"),
        (encoded(picture((9, 9)), "EPS"), "another format"),
        (encoded(picture((90, 90)), "PNG")[:-5000], "truncated"),
        (encoded(picture((90, 90)), "JPEG")[:-500], "truncated"),
        (encoded(picture((90, 90)), "WEBP")[:-500], ""),
        (png(0, 5), "no pixels"),
        (png(5, 0), "no pixels"),
        (png(8192, 8193), "8192×8193"),
        (png(10_000, 10_000), "10000×10000"),
        (png(100_000, 100_000), "10000000000 pixels"),
        (Path("no such file.png"), "No such file"),
        (Path(), "directory"),
        ("picture.png", "str"),
        (None, "NoneType"),
        (np.zeros((4, 4, 3), np.float32), "float32 [4, 4, 3]"),
        (np.zeros((4, 4, 2), np.uint8), "uint8 [4, 4, 2]"),
        (np.zeros((4,), np.uint8), "uint8 [4]"),
        (np.zeros((0, 4, 3), np.uint8), "4×0"),
        (np.zeros((4, 4, 3), np.bool_), "bool [4, 4, 3]"),
        (Image.new("L", (0, 3)), "0×3"),
        (Image.new("I", (3, 3)), "'I'"),
        (Image.new("F", (3, 3)), "'F'"),
        (Image.new("LAB", (3, 3)), "'LAB'"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_picture_is_refused(source: Any, got: str) -> None:
    assert "picture" in refused(source, got).what
    assert "mask" in refused(source, got, open_mask).what


def test_the_largest_picture_is_taken() -> None:
    image = Image.new("1", (8192, 8192), 1)
    assert image.width * image.height == MOST_PIXELS
    assert open_mask(image).size == image.size


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_size_is_checked_before_pixels_are_decoded() -> None:
    """A file whose pixels are missing: one that is too large is called too large, one that is not is called damaged."""
    refused(png(10_000, 10_000), "10000×10000")
    refused(png(8192, 8192), "truncated")


@settings(deadline=None, max_examples=400)
@given(
    file_format=st.sampled_from(FORMATS),
    edits=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=12),
    end=st.integers(0, 2**16) | st.none(),
)
def test_damaged_files_are_refused_or_opened(file_format: str, edits: list[tuple[int, int]], end: int | None) -> None:
    data = bytearray(encoded(picture((23, 19)), file_format))
    for place, value in edits:
        data[place % len(data)] = value
    try:
        opened = open_image(bytes(data[: end % len(data) if end else None]))
    except ImageError:
        return
    assert opened.mode == "RGB"
    assert opened.width * opened.height > 0


@pytest.mark.parametrize("source", SIZES)
@pytest.mark.parametrize("size", [(64, 64), (128, 8), (56, 200), (8, 8)])
@pytest.mark.parametrize("mode", RESIZES)
def test_preprocess_is_diffusers_bit_for_bit(source: tuple[int, int], size: tuple[int, int], mode: str) -> None:
    from diffusers.image_processor import VaeImageProcessor

    width, height = size
    image = picture(source)
    ours = preprocess(image, size, mode)
    assert (ours.dtype, ours.shape, ours.flags.c_contiguous) == (np.float32, (3, height, width), True)
    assert -1 <= ours.min() <= ours.max() <= 1
    try:
        wanted = VaeImageProcessor().preprocess(image, height=height, width=width, resize_mode=mode)
    except ValueError:  # it scales an edge to nothing; ours to one pixel
        assert mode != "default"
        assert max(source) / min(source) > 8
        return
    np.testing.assert_array_equal(ours, wanted[0].numpy())


@settings(deadline=None, max_examples=150)
@given(
    source=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    mode=st.sampled_from(sorted(RESIZES)),
)
def test_any_size_is_diffusers_bit_for_bit(source: tuple[int, int], size: tuple[int, int], mode: str) -> None:
    test_preprocess_is_diffusers_bit_for_bit(source, (8 * size[0], 8 * size[1]), mode)


@pytest.mark.parametrize("source", [size for size in SIZES if min(size) >= 8])
def test_the_pictures_own_size_is_diffusers(source: tuple[int, int]) -> None:
    from diffusers.image_processor import VaeImageProcessor

    image = picture(source)
    wanted = VaeImageProcessor().preprocess(image)[0].numpy()
    np.testing.assert_array_equal(preprocess(image, default_size(image)), wanted)


@pytest.mark.parametrize("source", [(7, 100), (100, 7)])
def test_pictures_too_small_for_a_size_of_their_own(source: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="too small") as caught:
        default_size(picture(source))
    assert f"{source[0]}×{source[1]}" in caught.value.got


def test_an_unknown_resize_mode() -> None:
    with pytest.raises(UnknownName, match="did you mean crop"):
        resize(picture((9, 9)), (8, 8), "crops")


@pytest.mark.parametrize("source", [(1, 65_000), (65_000, 1), (2, 33_000)])
def test_lines_fit_into_memory(source: tuple[int, int]) -> None:
    """Scaled to cover 1024×1024, and then cropped, these would have 66 and 17 thousand million pixels."""
    image = Image.new("RGB", source, "red")
    image.paste("blue", (source[0] // 2, source[1] // 2, *source))
    made = {mode: preprocess(image, (1024, 1024), mode) for mode in RESIZES}
    assert {pixels.shape for pixels in made.values()} == {(3, 1024, 1024)}
    for corner, colour in ((made["crop"][:, 0, 0], (1, -1, -1)), (made["crop"][:, -1, -1], (-1, -1, 1))):
        assert tuple(corner.round(1)) == colour, "cropped to the middle, half red and half blue"


def test_cropping_lines_is_the_same_but_for_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture((61, 257)).filter(ImageFilter.GaussianBlur(0.5))
    wanted = np.asarray(resize(image, (128, 64), "crop"), np.int16)
    monkeypatch.setattr(resizing, "MOST_PIXELS", 128 * 64)
    error = np.abs(np.asarray(resize(image, (128, 64), "crop")) - wanted).max()
    shifted = np.abs(wanted[1:] - wanted[:-1]).max()
    print(f"largest difference measured {error} of 255, required 2; a shift by one pixel makes {shifted}")
    assert 0 < error <= 2
    assert shifted > 10
