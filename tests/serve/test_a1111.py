"""A1111's API: what it makes, what it tells on the way, and what it refuses by name."""

from __future__ import annotations

import base64
import io
import json
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from running import Running
from served import wait_until

from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.samplers import SamplerOptions
from sdxl_trt.runtime.serve.http.a1111_inputs import filled

API = "/sdapi/v1"
PROMPT = "a (large:1.2) red circle on a [white] background"
FEW: dict[str, Any] = {"prompt": PROMPT, "width": 64, "height": 64, "steps": 3, "seed": 7}
LONG: dict[str, Any] = FEW | {"width": 192, "height": 192, "steps": 290}
BLUE = np.full((64, 64, 3), (30, 84, 240), np.uint8)
SQUARE = np.zeros((64, 64), np.uint8)
SQUARE[24:48, 24:48] = 255


def encoded(pixels: Any, kind: str = "PNG") -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def pixels(image: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB"), int)


def ask(server: Running, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = server.post(f"{API}/{path}", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def painted(server: Running, **fields: Any) -> tuple[Any, str]:
    """A blue picture with its middle painted anew, and the text that says how."""
    body = FEW | {"init_images": [encoded(BLUE)], "mask": encoded(SQUARE), "mask_blur": 0, "steps": 6} | fields
    answer = ask(server, "img2img", body)
    return pixels(answer["images"][0]), json.loads(answer["info"])["infotexts"][0]


def test_a_picture_is_the_one_that_the_pipeline_makes_of_a1111s_syntax(idle: Running, wide_bundle: Path) -> None:
    answer = ask(idle, "txt2img", FEW | {"sampler_name": "DPM++ 2M Karras", "negative_prompt": "blue"})
    with Pipeline.load(wide_bundle, threads=1) as pipeline:
        expected = pipeline(
            PROMPT,
            negative_prompt="blue",
            weighting="a1111",
            sampler="DPM++ 2M",
            options=SamplerOptions(sigmas="karras"),
            guidance=7.0,
            size=(64, 64),
            steps=3,
            seed=7,
        ).images[0]
    assert np.abs(pixels(answer["images"][0]) - np.asarray(expected, int)).max() <= 1


def test_an_answer_says_how_its_pictures_were_made(idle: Running) -> None:
    answer = ask(idle, "txt2img", FEW | {"batch_size": 2, "n_iter": 2, "negative_prompt": "blue"})
    info = json.loads(answer["info"])
    assert info["all_seeds"] == [7, 8, 9, 10]
    assert len(answer["images"]) == len(info["infotexts"]) == len(info["all_prompts"]) == 4
    wanted = {"prompt": PROMPT, "negative_prompt": "blue", "seed": 7, "steps": 3, "cfg_scale": 7.0, "batch_size": 2}
    assert wanted.items() <= info.items()
    assert {"width": 64, "height": 64, "sampler_name": "Euler", "sd_model_name": "sdxl-shapes"}.items() <= info.items()
    assert {"prompt": PROMPT, "seed": 7, "save_images": False, "cfg_scale": 7.0}.items() <= answer["parameters"].items()
    for file, text in zip(answer["images"], info["infotexts"], strict=True):
        assert Image.open(io.BytesIO(base64.b64decode(file))).text["parameters"] == text
    assert "Seed: 9" in info["infotexts"][2]
    alone = ask(idle, "txt2img", FEW | {"seed": 9, "negative_prompt": "blue"})
    assert np.abs(pixels(alone["images"][0]) - pixels(answer["images"][2])).max() <= 1


def test_what_is_not_sent_is_as_in_a1111_and_null_is_not_sent(idle: Running) -> None:
    answer = ask(idle, "txt2img", {"width": 64, "height": 64, "sampler_name": None, "styles": None, "seed": None})
    info = json.loads(answer["info"])
    assert (info["steps"], info["cfg_scale"], info["prompt"]) == (50, 7.0, "")
    assert 0 <= info["seed"] < 2**32
    assert json.loads(ask(idle, "txt2img", FEW | {"seed": -1})["info"])["seed"] != info["seed"]


@pytest.mark.parametrize(
    ("options", "text"), [({}, "RNG: CPU"), ({"randn_source": "GPU"}, ""), ({"emphasis": "None"}, "None")]
)
def test_options_of_a_request_are_its_own(idle: Running, options: dict[str, str], text: str) -> None:
    infotext = json.loads(ask(idle, "txt2img", FEW | {"override_settings": options})["info"])["infotexts"][0]
    assert text in infotext
    assert ("RNG" in infotext) == (options.get("randn_source") != "GPU")
    assert idle.get(f"{API}/options").json()["randn_source"] == "CPU"


def test_img2img_starts_from_the_picture(idle: Running) -> None:
    for kind in ("PNG", "JPEG", "WEBP"):
        body = FEW | {"init_images": [f"data:image/{kind.lower()};base64,{encoded(BLUE, kind)}"], "steps": 10}
        near, far = (pixels(ask(idle, "img2img", body | {"denoising_strength": s})["images"][0]) for s in (0.2, 1.0))
        assert np.abs(near - BLUE).mean() < np.abs(far - BLUE).mean()
    echo = ask(idle, "img2img", body | {"include_init_images": True})["parameters"]
    assert echo["init_images"] == body["init_images"]
    assert ask(idle, "img2img", body)["parameters"]["init_images"] is None


@pytest.mark.parametrize(("mode", "kept"), [(0, "all"), (1, "middle"), (2, "all")])
def test_pictures_of_another_shape_are_stretched_cropped_or_filled_up(idle: Running, mode: int, kept: str) -> None:
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, :32, 0] = wide[:, 64:, 2] = 255
    body = FEW | {"init_images": [encoded(wide)], "resize_mode": mode, "denoising_strength": 0.4}
    made = pixels(ask(idle, "img2img", body)["images"][0])
    assert made.shape == (64, 64, 3)
    coloured = made[28:36, 2:8, 0].mean() > made[28:36, 28:36, 0].mean() + 60
    assert coloured == (kept == "all")


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("fill", [0, 1])
def test_inpainting_paints_what_is_white_and_keeps_the_rest_to_the_pixel(idle: Running, whole: bool, fill: int) -> None:
    fields = {"inpaint_full_res": not whole, "inpaint_full_res_padding": 8, "inpainting_fill": fill}
    made, text = painted(idle, **fields)
    changed = np.abs(made - BLUE).max(axis=2) > 0
    assert changed[24:48, 24:48].mean() > 0.9
    assert not changed[SQUARE == 0].any()
    assert ("Inpaint area: Only masked" in text) != whole


def test_an_inverted_mask_paints_what_is_black(idle: Running) -> None:
    made, text = painted(idle, inpainting_mask_invert=1, inpaint_full_res=False)
    changed = np.abs(made - BLUE).max(axis=2) > 0
    assert not changed[SQUARE > 0].any()
    assert changed[SQUARE == 0].mean() > 0.9
    assert "Mask mode: Inpaint not masked" in text


def test_fill_spreads_the_colours_around_over_what_is_masked() -> None:
    picture = BLUE.copy()
    picture[SQUARE > 0] = (255, 0, 0)
    result = np.asarray(filled(Image.fromarray(picture), Image.fromarray(SQUARE)), int)
    assert np.array_equal(result[SQUARE == 0], picture[SQUARE == 0])
    assert np.abs(result - BLUE).max() <= 8  # premultiplied and rounded, layer by layer


@pytest.mark.parametrize(
    ("path", "fields", "named"),
    [
        ("txt2img", {"frames": 1}, "frames"),
        ("txt2img", {"enable_hr": True}, "enable_hr"),
        ("txt2img", {"restore_faces": True}, "restore_faces"),
        ("txt2img", {"tiling": True}, "tiling"),
        ("txt2img", {"styles": ["oil"]}, "styles"),
        ("txt2img", {"subseed_strength": 0.1}, "subseed_strength"),
        ("txt2img", {"seed_resize_from_h": 64, "seed_resize_from_w": 64}, "seed_resize_from_h"),
        ("txt2img", {"s_churn": 1}, "s_churn"),
        ("txt2img", {"s_noise": 1.1}, "s_noise"),
        ("txt2img", {"eta": 0.5, "sampler_name": "Euler a"}, "eta"),
        ("txt2img", {"script_name": "X/Y/Z plot"}, "script_name"),
        ("txt2img", {"alwayson_scripts": {"ControlNet": {"args": []}}}, "ControlNet"),
        ("txt2img", {"refiner_checkpoint": "refiner"}, "refiner_checkpoint"),
        ("txt2img", {"send_images": False}, "send_images"),
        ("txt2img", {"clip_skip": 3}, "clip_skip"),
        ("txt2img", {"override_settings": {"CLIP_stop_at_last_layers": 3}}, "CLIP_stop_at_last_layers"),
        ("txt2img", {"override_settings": {"sd_model_checkpoint": "other"}}, "sd_model_checkpoint"),
        ("txt2img", {"override_settings": {"randn_source": "TPU"}}, "randn_source"),
        ("txt2img", {"override_settings": {"token_merging_ratio": 0.5}}, "token_merging_ratio"),
        (
            "txt2img",
            {"override_settings": {"randn_source": "GPU"}, "override_settings_restore_afterwards": False},
            "override_settings_restore_afterwards",
        ),
        ("txt2img", {"prompt": "a cat <lora:cats:0.8>"}, "lora"),
        ("txt2img", {"batch_size": 6, "n_iter": 2}, "batch_size"),
        ("txt2img", {"batch_size": 10**9}, "batch_size"),
        ("txt2img", {"seed": -2}, "seed"),
        ("txt2img", {"steps": "many"}, "steps"),
        ("img2img", {"init_images": None}, "init_images"),
        ("img2img", {"init_images": [encoded(BLUE)] * 2}, "init_images"),
        ("img2img", {"init_images": ["http://127.0.0.1/a.png"]}, "URLs and paths are never opened"),
        ("img2img", {"init_images": ["/etc/passwd"]}, "init_images"),
        ("img2img", {"resize_mode": 3}, "resize_mode"),
        ("img2img", {"mask": encoded(SQUARE), "inpainting_fill": 2}, "inpainting_fill"),
        ("img2img", {"mask": encoded(SQUARE), "mask_blur_x": 1}, "mask_blur_x"),
        ("img2img", {"image_cfg_scale": 2}, "image_cfg_scale"),
        ("img2img", {"initial_noise_multiplier": 0.5}, "initial_noise_multiplier"),
    ],
)
def test_what_is_not_done_is_refused_by_name(idle: Running, path: str, fields: dict[str, Any], named: str) -> None:
    start = {"init_images": [encoded(BLUE)]} if path == "img2img" else {}
    response = idle.post(f"{API}/{path}", json=FEW | start | fields)
    assert response.status_code == 422, response.text
    assert named in response.json()["detail"]
    assert set(response.json()) == {"error", "detail", "body", "errors"}


@pytest.mark.parametrize(
    ("path", "fields", "named"),
    [
        ("txt2img", {"width": 512, "height": 512}, "64x64 to 192x192"),
        ("txt2img", {"width": 10**9}, "64x64 to 192x192"),
        ("img2img", {"width": 10**9, "init_images": [encoded(BLUE)]}, "64x64 to 192x192"),
        ("txt2img", {"steps": 10**9}, "at most 1000"),
        ("txt2img", {"sampler_name": "DPM adaptive"}, "DPM adaptive"),
        ("txt2img", {"scheduler": "align_your_steps"}, "align_your_steps"),
        ("txt2img", {"prompt": "a AND b"}, "AND"),
        ("txt2img", {"eta": 2, "sampler_name": "DDIM"}, "eta"),
        ("img2img", {"init_images": [base64.b64encode(b"no picture").decode()]}, "this picture cannot be used"),
        ("img2img", {"init_images": [encoded(BLUE)], "mask": encoded(SQUARE * 0)}, "nothing to paint"),
        ("img2img", {"init_images": [encoded(BLUE)], "mask": encoded(SQUARE[:32])}, "another size"),
        ("img2img", {"init_images": [encoded(np.zeros((4097, 4096), np.uint8))]}, "too large"),
        ("img2img", {"init_images": [encoded(BLUE)], "denoising_strength": 0}, "no step"),
    ],
)
def test_what_cannot_be_done_says_what_can(idle: Running, path: str, fields: dict[str, Any], named: str) -> None:
    response = idle.post(f"{API}/{path}", json=FEW | fields)
    assert response.status_code == 400, response.text
    assert named in response.json()["detail"]


def begin(server: Running, pool: ThreadPoolExecutor, **fields: Any) -> Future[httpx2.Response]:
    """A request that takes long, on its way."""
    jobs = len(server.context.jobs)
    asked = pool.submit(server.post, f"{API}/txt2img", json=LONG | fields)
    wait_until(lambda: len(server.context.jobs) > jobs)
    return asked


def test_progress_shows_the_picture_on_its_way_and_interrupt_ends_it(idle: Running) -> None:
    with ThreadPoolExecutor() as pool:
        first, second = begin(idle, pool), begin(idle, pool)
        shown = idle.get(f"{API}/progress").json()
        assert shown["state"]["job_count"] == 2
        wait_until(lambda: idle.get(f"{API}/progress").json()["current_image"] is not None)
        shown = idle.get(f"{API}/progress").json()
        assert pixels(shown["current_image"]).shape == (24, 24, 3)
        assert 0 < shown["progress"] < 1
        assert shown["eta_relative"] > 0
        assert 0 < shown["state"]["sampling_step"] < shown["state"]["sampling_steps"] == 290
        assert idle.get(f"{API}/progress?skip_current_image=true").json()["current_image"] is None
        assert idle.post(f"{API}/skip").json() is None
        assert first.result().status_code == 499
        assert not second.done()
        assert idle.post(f"{API}/interrupt").json() == {}
        assert second.result().json()["error"] == "Cancelled"
    idle.wait_until_idle()
    rest = idle.get(f"{API}/progress").json()
    assert (rest["progress"], rest["state"]["job_count"], rest["state"]["interrupted"]) == (0, 0, False)


def test_interrupt_is_about_ones_own_requests(idle: Running) -> None:
    other = httpx2.Client(transport=httpx2.HTTPTransport(local_address="127.0.0.2"), base_url=idle.base_url)
    with ThreadPoolExecutor() as pool, other:
        asked = begin(idle, pool)
        assert other.get(f"{API}/progress").json()["state"]["job_count"] == 0
        other.post(f"{API}/interrupt")
        state = idle.get(f"{API}/progress").json()["state"]
        assert (state["job_count"], state["interrupted"]) == (1, False)
        assert not asked.done()
        idle.post(f"{API}/interrupt")
        assert asked.result().status_code == 499


def test_a_client_that_goes_away_gives_its_slots_back(idle: Running) -> None:
    body = json.dumps(LONG).encode()
    head = (
        f"POST {API}/txt2img HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    with socket.create_connection(idle.address) as connection:
        connection.sendall(head.encode() + b"\r\n" + body)
        wait_until(lambda: bool(idle.context.jobs))
    wait_until(lambda: not idle.context.service.jobs(), 5)


def test_png_info_reads_what_the_server_wrote(idle: Running) -> None:
    answer = ask(idle, "txt2img", FEW)
    read = ask(idle, "png-info", {"image": answer["images"][0]})
    assert read["info"] == json.loads(answer["info"])["infotexts"][0]
    assert {"Prompt": PROMPT, "Steps": "3", "Seed": "7", "CFG scale": "7"}.items() <= read["parameters"].items()
    for image in (encoded(BLUE), encoded(BLUE, "JPEG"), "no picture"):
        response = idle.post(f"{API}/png-info", json={"image": image})
        assert response.status_code == 422
        assert "/tmp" not in response.text


def test_only_options_in_force_can_be_set(idle: Running) -> None:
    options = idle.get(f"{API}/options").json()
    for fine in (options, {"sd_model_checkpoint": "sdxl-shapes"}, {"CLIP_stop_at_last_layers": 2}, {}):
        assert idle.post(f"{API}/options", json=fine).json() is None
    for wrong in ({"sd_model_checkpoint": "v1-5"}, {"randn_source": "GPU"}, {"img2img_fix_steps": True}):
        response = idle.post(f"{API}/options", json=wrong)
        assert response.status_code == 422
        assert next(iter(wrong)) in response.json()["detail"]
    assert idle.get(f"{API}/options").json() == options


def test_many_clients_at_a_time_each_get_their_own(idle: Running) -> None:
    def one(number: int) -> int:
        found: int = json.loads(ask(idle, "txt2img", FEW | {"seed": number, "steps": 1 + number % 4})["info"])["seed"]
        return found

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(one, range(24))) == list(range(24))
