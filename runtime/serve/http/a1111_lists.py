"""What A1111's clients ask before anything else: which models, samplers and options there are."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest

from sdxl_trt.memory import host_memory
from sdxl_trt.runtime.serve.http.a1111_options import check_in_force, in_force, title
from sdxl_trt.runtime.serve.http.a1111_samplers import listed_samplers, listed_schedulers
from sdxl_trt.runtime.serve.http.context import context_of
from sdxl_trt.spec import ModelSpec

router = APIRouter()
Listed = list[dict[str, Any]]


@router.get("/options")
async def get_options(http: HttpRequest) -> dict[str, Any]:
    """Options as they are in force."""
    return in_force(_model(http))


@router.post("/options")
async def set_options(http: HttpRequest, options: dict[str, Any]) -> None:
    """Take options that are in force anyway; refuse others by name."""
    check_in_force(options, _model(http))


@router.get("/sd-models")
async def sd_models(http: HttpRequest) -> Listed:
    """The model of the bundle."""
    model = _model(http)
    return [
        {
            "title": title(model),
            "model_name": model.name,
            "hash": model.content[:10],
            "sha256": model.content,
            "filename": model.name,
            "config": None,
        }
    ]


@router.post("/refresh-checkpoints")
async def refresh_checkpoints() -> None:
    """The model is the one that is loaded: there is nothing to look for."""


@router.get("/samplers")
async def samplers() -> Listed:
    """All samplers."""
    return listed_samplers()


@router.get("/schedulers")
async def schedulers() -> Listed:
    """All schedulers that there is something for."""
    return listed_schedulers()


@router.get("/upscalers")
async def upscalers() -> Listed:
    """None, which A1111 lists by this name."""
    return [{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 1}]


@router.get("/latent-upscale-modes")
@router.get("/sd-vae")
@router.get("/script-info")
@router.get("/loras")
@router.get("/hypernetworks")
@router.get("/prompt-styles")
@router.get("/face-restorers")
@router.get("/realesrgan-models")
async def nothing() -> Listed:
    """There are none."""
    return []


@router.get("/scripts")
async def scripts() -> dict[str, list[str]]:
    """There are none."""
    return {"txt2img": [], "img2img": []}


@router.get("/embeddings")
async def embeddings() -> dict[str, dict[str, Any]]:
    """There are none."""
    return {"loaded": {}, "skipped": {}}


@router.get("/cmd-flags")
async def cmd_flags() -> dict[str, Any]:
    """What A1111 would have to be started with to be as this."""
    return {"api": True, "nowebui": True}


@router.get("/memory")
async def memory() -> dict[str, dict[str, Any]]:
    """Bytes of the host's memory. What is on a GPU, /metrics says."""
    there = host_memory()
    ram = {"free": there.available, "used": there.total - there.available, "total": there.total}
    return {"ram": ram, "cuda": {"error": "unavailable"}}


def _model(http: HttpRequest) -> ModelSpec:
    return context_of(http).service.room.model
