"""A1111's options: those that say how pictures are made here, as they are in force. None can be set for good.

A request may carry some of its own in override_settings. Whoever posts what is in force anyway is content with it: so
does Open WebUI, which takes all options, sets its model's name among them, and posts them again.
"""

from __future__ import annotations

from typing import Any, Final

from sdxl_trt.runtime.prompts.emphasis import KEEP_MEAN, OFF
from sdxl_trt.runtime.serve.http.a1111_models import unsupported
from sdxl_trt.spec import ModelSpec

CHECKPOINT: Final = "sd_model_checkpoint"
_ALSO: Final[dict[str, tuple[Any, ...]]] = {
    "sd_vae": ("None", "", [], "automatic"),
    "CLIP_stop_at_last_layers": (2,),
    "sd_checkpoint_hash": ("",),
}
"""Values that come to the same as those in force. SDXL reads the text encoders' layers before the last ones, which
other models call 2, and A1111 leaves CLIP_stop_at_last_layers aside for it."""
_EMPHASES: Final = {"Original": KEEP_MEAN, "No norm": "a1111-no-norm", "None": OFF}
_SOURCES: Final = {"CPU": "cpu", "GPU": "cuda", "NV": "cuda"}
_OF_REQUESTS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "emphasis": ("weighting", _EMPHASES),
    "randn_source": ("rng", _SOURCES),
}
"""Options that a request may set for itself: the setting that each is here, and its values."""


def title(model: ModelSpec) -> str:
    """A model as A1111 names checkpoints."""
    return f"{model.name} [{model.content[:10]}]"


def in_force(model: ModelSpec) -> dict[str, Any]:
    """All options, by A1111's names."""
    return {
        CHECKPOINT: title(model),
        "sd_checkpoint_hash": model.content,
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": 1,
        "emphasis": "Original",
        "randn_source": "CPU",
        "eta_noise_seed_delta": 0,
        "eta_ancestral": 1.0,
        "eta_ddim": 0.0,
        "samples_format": "png",
        "live_previews_enable": True,
    }


def check_in_force(options: dict[str, Any], model: ModelSpec) -> None:
    """Refuse options that are not those in force.

    Raises:
        HttpError: names the first.
    """
    for name, value in options.items():
        if not _is_in_force(name, value, model):
            raise _refused(name, value, model)


def settings_of(overrides: dict[str, Any], model: ModelSpec, *, restore: bool) -> dict[str, Any]:
    """What override_settings come to in a request's settings.

    Args:
        overrides: options by name; null is as if it were not sent.
        model: of the bundle.
        restore: they are the request's own, and not to stay.

    Raises:
        HttpError: one that cannot be set.
    """
    settings: dict[str, Any] = {}
    for name, value in overrides.items():
        if value is None or _is_in_force(name, value, model):
            continue
        setting, values = _OF_REQUESTS.get(name, ("", {}))
        if not isinstance(value, str) or value not in values:
            raise _refused(name, value, model)
        if not restore:
            raise unsupported(
                "override_settings_restore_afterwards", restore, "true, with options that are not in force"
            )
        settings[setting] = values[value]
    return settings


def check_clip_skip(layers: int | None, model: ModelSpec) -> None:
    """Refuse SD.Next's clip_skip where CLIP_stop_at_last_layers would be.

    Raises:
        HttpError: it is another than that in force.
    """
    if layers is not None and not _is_in_force("CLIP_stop_at_last_layers", layers, model):
        raise unsupported("clip_skip", layers, "1 or 2, which are SDXL's own layers")


def _is_in_force(name: str, value: object, model: ModelSpec) -> bool:
    if name == CHECKPOINT:
        names = (model.name, f"{model.name}.safetensors", model.content, model.content[:10])
        return value in (title(model), *names)
    options = in_force(model)
    return name in options and value in (options[name], *_ALSO.get(name, ()))


def _refused(name: str, value: object, model: ModelSpec) -> Exception:
    options = in_force(model)
    values = [options[name], *_OF_REQUESTS.get(name, ("", {}))[1]] if name in options else []
    expected = " or ".join(map(str, dict.fromkeys(values))) or f"one of {', '.join(options)}"
    return unsupported(f"{name:.100}", value, expected, where="" if name in options else "options")
