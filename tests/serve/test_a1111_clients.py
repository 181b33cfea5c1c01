"""A1111's clients: the real webuiapi; and what Open WebUI and SillyTavern send, recorded from their sources.

Open WebUI: backend/open_webui/routers/images.py (set_image_model, get_models, image_generations). SillyTavern:
src/endpoints/stable-diffusion.js, which hands on the body that generateAutoImage in
public/scripts/extensions/stable-diffusion/index.js makes, with the fields for its own server in it. Sizes alone are
others here: the demo model's engines do not take 512×512.
"""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
import webuiapi
from PIL import Image
from running import Running

API = "/sdapi/v1"
PROMPT = "a large red circle on a white background"
SMALL = {"width": 64, "height": 64}
SILLY_TAVERN: dict[str, Any] = {
    "url": "http://localhost:7860",
    "auth": "somebody:secret",
    "prompt": "best quality, absurdres, aesthetic, a large red circle",
    "negative_prompt": "lowres, bad anatomy, bad hands, text, error, cropped, worst quality, low quality",
    "sampler_name": "DDIM",
    "scheduler": "normal",
    "steps": 20,
    "cfg_scale": 7,
    **SMALL,
    "restore_faces": False,
    "enable_hr": False,
    "hr_upscaler": "Latent",
    "hr_scale": 2,
    "hr_additional_modules": [],
    "denoising_strength": 0.7,
    "hr_second_pass_steps": 0,
    "override_settings": {"CLIP_stop_at_last_layers": 1},
    "override_settings_restore_afterwards": True,
    "clip_skip": 1,
    "save_images": True,
    "send_images": True,
    "do_not_save_grid": False,
    "do_not_save_samples": False,
}
OPEN_WEBUI: dict[str, Any] = {"prompt": PROMPT, "batch_size": 1, **SMALL, "steps": 50}
AUTH = {"authorization": "Basic " + base64.b64encode(b"somebody:secret").decode()}


@pytest.fixture
def api(idle: Running) -> webuiapi.WebUIApi:
    host, port = idle.address
    return webuiapi.WebUIApi(host=host, port=port)


def test_webuiapi_makes_pictures_with_its_defaults(api: webuiapi.WebUIApi) -> None:
    result = api.txt2img(prompt=PROMPT, seed=7, batch_size=2, **SMALL)
    assert [image.size for image in result.images] == [(64, 64)] * 2
    assert (result.info["steps"], result.info["sampler_name"], result.info["all_seeds"]) == (20, "Euler a", [7, 8])
    assert result.parameters["prompt"] == PROMPT
    assert result.image.info["parameters"] == result.info["infotexts"][0]


def test_webuiapi_knows_every_sampler_that_is_listed(api: webuiapi.WebUIApi) -> None:
    assert {"Euler a", "DPM++ 2M", "DDIM", "UniPC"} <= set(api.util_get_sampler_names())
    assert {"automatic", "karras"} <= set(api.util_get_scheduler_names())
    for name in ("DPM++ 2M Karras", "DPM++ SDE", "DPM++ 2M SDE Heun", "UniPC", "DDIM", "LMS"):
        result = api.txt2img(prompt=PROMPT, sampler_name=name, steps=3, **SMALL)
        assert name.startswith(result.info["sampler_name"])


def test_webuiapi_paints_into_pictures(api: webuiapi.WebUIApi) -> None:
    blue, mask = Image.new("RGB", (64, 64), (30, 84, 240)), Image.new("L", (64, 64))
    mask.paste(255, (24, 24, 48, 48))
    plain = api.img2img(images=[blue], prompt=PROMPT, steps=6, **SMALL)
    assert plain.image.size == (64, 64)
    result = api.img2img(images=[blue], mask_image=mask, mask_blur=0, prompt=PROMPT, steps=6, **SMALL)
    changed = (np.asarray(result.image) != np.asarray(blue)).any(axis=2)
    assert changed[24:48, 24:48].any()
    changed[24:48, 24:48] = False
    assert not changed.any()
    assert result.info["denoising_strength"] == 0.75


def test_webuiapi_asks_everything_else(api: webuiapi.WebUIApi) -> None:
    assert api.get_scripts() == {"txt2img": [], "img2img": []}
    title = api.util_get_current_model()
    assert api.util_get_model_names() == [title]
    api.util_set_model("sdxl-shapes")
    api.util_wait_for_ready(check_interval=0.1)
    result = api.txt2img(prompt=PROMPT, steps=1, **SMALL)
    assert api.png_info(result.image).info == result.info["infotexts"][0]
    assert api.get_progress()["state"]["job_count"] == 0
    assert api.get_memory()["ram"]["total"] > 0
    assert api.get_cmd_flags()["api"]
    assert [each["name"] for each in api.get_upscalers()] == ["None"]
    assert api.get_embeddings() == {"loaded": {}, "skipped": {}}
    for nothing in (
        api.get_sd_vae,
        api.get_latent_upscale_modes,
        api.get_loras,
        api.get_hypernetworks,
        api.get_face_restorers,
        api.get_realesrgan_models,
        api.get_prompt_styles,
    ):
        assert nothing() == []
    for done in (api.interrupt, api.skip, api.refresh_checkpoints):
        assert not done()


def test_webuiapi_is_told_what_is_not_supported(api: webuiapi.WebUIApi) -> None:
    with pytest.raises(RuntimeError, match="enable_hr"):
        api.txt2img(prompt=PROMPT, enable_hr=True, **SMALL)
    with pytest.raises(RuntimeError, match="64x64 to 192x192"):
        api.txt2img(prompt=PROMPT)


def test_open_webui_sets_its_model_and_makes_a_picture(idle: Running) -> None:
    models = [each["title"] for each in idle.get(f"{API}/sd-models", headers=AUTH).json()]
    options = idle.get(f"{API}/options", headers=AUTH).json()
    assert options["sd_model_checkpoint"] in models
    options["sd_model_checkpoint"] = "sdxl-shapes"
    assert idle.post(f"{API}/options", json=options, headers=AUTH).status_code == 200
    answer = idle.post(f"{API}/txt2img", json=OPEN_WEBUI, headers={"authorization": ""}).json()
    assert [Image.open(io.BytesIO(base64.b64decode(image))).size for image in answer["images"]] == [(64, 64)]
    assert json.loads(answer["info"])["steps"] == 50
    negative = idle.post(f"{API}/txt2img", json=OPEN_WEBUI | {"negative_prompt": "blue", "cfg_scale": 4}).json()
    assert json.loads(negative["info"])["cfg_scale"] == 4


def test_silly_tavern_connects(idle: Running) -> None:
    assert idle.get(f"{API}/options", headers=AUTH).status_code == 200
    for path in ("samplers", "schedulers", "upscalers", "latent-upscale-modes"):
        assert all(each["name"] for each in idle.get(f"{API}/{path}", headers=AUTH).json())
    assert idle.get(f"{API}/sd-vae", headers=AUTH).json() == []
    assert idle.get("/sdapi/v1/sd-modules", headers=AUTH).status_code == 404  # Forge's
    model = idle.get(f"{API}/sd-models", headers=AUTH).json()[0]["title"]
    assert idle.post(f"{API}/options", json={"sd_model_checkpoint": model}, headers=AUTH).status_code == 200
    progress = idle.get(f"{API}/progress", headers=AUTH).json()
    assert (progress["progress"], progress["state"]["job_count"]) == (0, 0)
    assert "forge_preset" not in idle.get(f"{API}/options", headers=AUTH).json()


def test_silly_tavern_makes_a_picture_and_its_password_comes_back_nowhere(idle: Running) -> None:
    response = idle.post(f"{API}/txt2img", json=SILLY_TAVERN, headers=AUTH)
    assert response.status_code == 200, response.text
    info = json.loads(response.json()["info"])
    assert (info["sampler_name"], info["steps"]) == ("DDIM", 20)
    assert "secret" not in response.text
    assert response.json()["parameters"]["save_images"] is False


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"enable_hr": True}, "enable_hr"),
        ({"restore_faces": True}, "restore_faces"),
        ({"override_settings": {"sd_vae": "other.vae.pt"}}, "sd_vae"),
        ({"alwayson_scripts": {"ADetailer": {"args": [True, True, {"ad_model": "face_yolov8n.pt"}]}}}, "ADetailer"),
    ],
)
def test_silly_tavern_is_told_what_is_not_supported(idle: Running, change: dict[str, Any], named: str) -> None:
    response = idle.post(f"{API}/txt2img", json=SILLY_TAVERN | change)
    assert response.status_code == 422
    assert named in response.text
