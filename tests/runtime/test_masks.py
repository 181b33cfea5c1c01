"""Masks, 'only masked' and pasting back, against diffusers' VaeImageProcessor and inpainting pipeline."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pictures import encoded, picture
from PIL import Image, ImageDraw, ImageOps

from sdxl_trt.errors import ImageError
from sdxl_trt.runtime.images.inpainting import Inpainting, prepare_inpainting
from sdxl_trt.runtime.images.masks import edit_mask, latent_mask, masked_pixels, prepare_mask
from sdxl_trt.runtime.images.opening import open_mask
from sdxl_trt.runtime.images.region import crop_region, overlay
from sdxl_trt.runtime.images.resizing import RESIZES

SOURCES = [(64, 64), (127, 61), (40, 301), (200, 137)]
TARGETS = [(64, 64), (128, 56), (56, 200)]


def mask_processor() -> Any:
    """As StableDiffusionXLInpaintPipeline has it."""
    from diffusers.image_processor import VaeImageProcessor

    return VaeImageProcessor(do_normalize=False, do_binarize=True, do_convert_grayscale=True)


def blob(size: tuple[int, int], box: tuple[int, int, int, int], mode: str = "L") -> Image.Image:
    """A white ellipse on black."""
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse((box[0], box[1], box[2] - 1, box[3] - 1), fill=255)
    return mask.convert(mode)


@st.composite
def masks(draw: Any) -> Image.Image:
    """Masks of a few rectangles of any grey, with at least one pixel that is not black."""
    width, height = draw(st.integers(1, 120)), draw(st.integers(1, 120))
    mask = Image.new("L", (width, height))
    for _ in range(draw(st.integers(1, 3))):
        left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        right, bottom = draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))
        mask.paste(draw(st.integers(1, 255)), (left, top, right, bottom))
    return mask


shapes = st.tuples(st.integers(1, 20), st.integers(1, 20)).map(lambda pair: (8 * pair[0], 8 * pair[1]))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("size", TARGETS)
@pytest.mark.parametrize("mode", RESIZES)
@pytest.mark.parametrize("kind", ["1", "L", "RGB"])
def test_cut_masks_are_diffusers_bit_for_bit(source: Any, size: Any, mode: str, kind: str) -> None:
    mask = open_mask(picture(source, kind))
    assert mask.mode == kind
    wanted = mask_processor().preprocess(mask, height=size[1], width=size[0], resize_mode=mode)[0].numpy()
    ours = prepare_mask(mask, size, mode=mode)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, wanted)


def test_soft_masks_keep_their_greys() -> None:
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (64, 1)))
    soft = prepare_mask(ramp, (256, 64), soft=True)
    np.testing.assert_array_equal(soft, np.tile(np.arange(256, dtype=np.float32) / np.float32(255), (1, 64, 1)))
    np.testing.assert_array_equal(prepare_mask(ramp, (256, 64)), (soft >= 0.5).astype(np.float32))
    assert len(np.unique(latent_mask(soft))) == 32


@pytest.mark.parametrize("size", [(8, 8), (64, 64), (200, 56), (1024, 1000), (72, 1032)])
def test_latent_masks_and_masked_pixels_are_the_pipelines(size: tuple[int, int]) -> None:
    import torch
    from diffusers import StableDiffusionXLInpaintPipeline

    width, height = size
    rng = np.random.default_rng(0)
    mask = (rng.random((1, height, width)) < 0.5).astype(np.float32)
    mask[0, 0, 0] = 1
    pixels = rng.uniform(-1, 1, (3, height, width)).astype(np.float32)
    t_mask, t_pixels = torch.from_numpy(mask)[None], torch.from_numpy(pixels)[None]
    wanted, _ = StableDiffusionXLInpaintPipeline.prepare_mask_latents(
        SimpleNamespace(vae_scale_factor=8), t_mask, None, 1, height, width, torch.float32, "cpu", None, False
    )
    np.testing.assert_array_equal(latent_mask(mask), wanted[0].numpy())
    ours = masked_pixels(pixels, mask)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, (t_pixels * (t_mask < 0.5))[0].numpy())


@pytest.mark.parametrize("factor", [1, 4, 7.5, 33])
def test_blur_is_diffusers(factor: float) -> None:
    from diffusers.image_processor import VaeImageProcessor

    for kind in ("L", "RGB"):
        mask = blob((90, 70), (20, 15, 60, 50), kind)
        wanted = VaeImageProcessor.blur(mask, blur_factor=factor).convert("L")
        np.testing.assert_array_equal(np.asarray(edit_mask(mask, blur=factor)), np.asarray(wanted))
    assert edit_mask(blob((90, 70), (20, 15, 60, 50), "1"), blur=factor).mode == "L"


def test_inverting_comes_before_blurring() -> None:
    mask = blob((90, 70), (20, 15, 60, 50))
    assert edit_mask(mask) is mask
    np.testing.assert_array_equal(np.asarray(edit_mask(mask, invert=True)), 255 - np.asarray(mask))
    both = edit_mask(mask, invert=True, blur=5)
    np.testing.assert_array_equal(np.asarray(both), np.asarray(edit_mask(ImageOps.invert(mask), blur=5)))


@settings(deadline=None, max_examples=300)
@given(mask=masks(), size=shapes, padding=st.integers(0, 150))
def test_regions_are_diffusers_and_hold_the_mask(mask: Image.Image, size: tuple[int, int], padding: int) -> None:
    region = crop_region(mask, size, padding)
    assert region == mask_processor().get_crop_region(mask, *size, pad=padding)
    left, top, right, bottom = region
    assert 0 <= left < right <= mask.width
    assert 0 <= top < bottom <= mask.height
    box = mask.getbbox()
    assert box is not None
    assert left <= max(box[0] - padding, 0)
    assert top <= max(box[1] - padding, 0)
    assert right >= min(box[2] + padding, mask.width)
    assert bottom >= min(box[3] + padding, mask.height)


@settings(deadline=None, max_examples=200)
@given(mask=masks(), size=shapes, padding=st.integers(0, 40), blur=st.integers(0, 5), invert=st.booleans())
def test_only_masked_is_diffusers_from_end_to_end(
    mask: Image.Image, size: tuple[int, int], padding: int, blur: int, invert: bool
) -> None:
    from diffusers.image_processor import VaeImageProcessor

    image, processor = picture(mask.size), VaeImageProcessor()
    drawn = edit_mask(mask, invert=invert, blur=blur)
    ours = prepared(image, drawn, size, padding=padding)
    box = processor.get_crop_region(drawn, *size, pad=padding)
    options = {"height": size[1], "width": size[0], "crops_coords": box, "resize_mode": "fill"}
    try:
        pixels = processor.preprocess(image, **options)
        wanted = mask_processor().preprocess(drawn, **options)
    except ValueError:  # it scales an edge to nothing; ours to one pixel
        return
    np.testing.assert_array_equal(ours.pixels, pixels[0].numpy())
    np.testing.assert_array_equal(ours.mask, wanted[0].numpy()[:, ::8, ::8])
    np.testing.assert_array_equal(ours.masked_pixels, (pixels * (wanted < 0.5))[0].numpy())
    result = picture(size, seed=1)
    try:
        pasted = processor.apply_overlay(drawn, image, result, box)
    except ValueError:
        return
    np.testing.assert_array_equal(np.asarray(ours.paste(result)), np.asarray(pasted))
    assert_kept(ours, result)


def prepared(image: Image.Image, mask: Image.Image, size: tuple[int, int], **options: Any) -> Inpainting:
    try:
        return prepare_inpainting(image, mask, size, **options)
    except ImageError as error:
        assume("leaves nothing to paint" not in error.what)
        raise


def assert_kept(work: Inpainting, result: Image.Image) -> None:
    """Black keeps the picture's own bytes."""
    pasted, before, shade = (np.asarray(each) for each in (work.paste(result), work.image, work.drawn.convert("L")))
    assert pasted.shape == before.shape
    np.testing.assert_array_equal(pasted[shade == 0], before[shade == 0])


@settings(deadline=None, max_examples=100)
@given(mask=masks(), size=shapes, soft=st.booleans())
def test_whole_pictures_are_diffusers(mask: Image.Image, size: tuple[int, int], soft: bool) -> None:
    from diffusers.image_processor import VaeImageProcessor

    image = picture(mask.size)
    ours = prepared(image, mask, size, soft=soft)
    assert ours.region == (0, 0, *image.size)
    assert ours.mask.shape == (1, size[1] // 8, size[0] // 8)
    wanted = VaeImageProcessor().preprocess(image, height=size[1], width=size[0])
    np.testing.assert_array_equal(ours.pixels, wanted[0].numpy())
    assert_kept(ours, image.resize(size))


@pytest.mark.parametrize("blur", [0, 4])
def test_a_whole_picture_pasted_back_is_diffusers(blur: int) -> None:
    from diffusers.image_processor import VaeImageProcessor

    image, result = picture((96, 64)), picture((96, 64), seed=1)
    mask = edit_mask(blob((96, 64), (30, 10, 70, 50)), blur=blur)
    ours = np.asarray(overlay(result, image, mask, (0, 0, 96, 64)))
    np.testing.assert_array_equal(ours, np.asarray(VaeImageProcessor().apply_overlay(mask, image, result)))
    shade = np.asarray(mask)
    np.testing.assert_array_equal(ours[shade == 255], np.asarray(result)[shade == 255])
    np.testing.assert_array_equal(ours[shade == 0], np.asarray(image)[shade == 0])


def test_a_mask_of_another_size_names_both() -> None:
    with pytest.raises(ImageError, match="another size") as caught:
        prepare_inpainting(picture((96, 64)), blob((64, 96), (9, 9, 50, 50)), (64, 64))
    assert "64×96" in caught.value.got
    assert "96×64" in caught.value.got
    assert "96×64" in caught.value.fix


@pytest.mark.parametrize("padding", [None, 0, 8])
@pytest.mark.parametrize(
    ("mask", "options", "got"),
    [
        (Image.new("L", (96, 64)), {}, "black|0.000"),
        (Image.new("RGB", (96, 64)), {"soft": True}, "black|0.000"),
        (Image.new("1", (96, 64)), {}, "black|0.000"),
        (Image.new("L", (96, 64), 127), {}, "0.498"),
        (edit_mask(Image.new("L", (96, 64), 255), invert=True), {}, "black|0.000"),
    ],
    ids=["black", "soft", "bits", "dark grey", "inverted"],
)
def test_masks_that_leave_nothing_to_paint(mask: Image.Image, options: Any, got: str, padding: int | None) -> None:
    with pytest.raises(ImageError, match="nothing to paint") as caught:
        prepare_inpainting(picture((96, 64)), mask, (96, 64), padding=padding, **options)
    assert any(part in caught.value.got for part in got.split("|"))
    assert caught.value.fix


def test_a_mask_thinner_than_a_latent_pixel_is_named_and_can_be_worked_on_alone() -> None:
    image, mask = picture((96, 64)), blob((96, 64), (41, 33, 44, 36))
    with pytest.raises(ImageError, match="nothing to paint") as caught:
        prepare_inpainting(image, mask, (96, 64))
    assert "thinner than 8 pixels" in caught.value.got
    assert "padding" in caught.value.fix
    assert prepare_inpainting(image, mask, (96, 64), padding=4).mask.any()


def test_masks_with_holes_are_refused(tmp_path: Path) -> None:
    layers = picture((31, 17), "RGBA")
    for source in (layers, encoded(layers, "PNG")):
        with pytest.raises(ImageError, match="transparent") as caught:
            open_mask(source)
        assert "getchannel('A')" in caught.value.fix
    layers.putalpha(255)
    np.testing.assert_array_equal(np.asarray(open_mask(layers)), np.asarray(layers.convert("RGB")))
