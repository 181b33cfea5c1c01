"""A refiner beside a base model in one bundle: which two go together."""

from __future__ import annotations

from sdxl_trt.errors import UsageError
from sdxl_trt.spec import ModelSpec
from sdxl_trt.spec.graphs import LATENT_CHANNELS

_LATENTS = ("scaling_factor", "latents_mean", "latents_std")


def conflict(base: ModelSpec, refiner: ModelSpec) -> UsageError | None:
    """Why a refiner cannot go on with a base model's latents; None where it can."""
    if base.kind == "refiner":
        return UsageError(
            f"{base.name} cannot have a refiner",
            got="a refiner itself, as MODEL",
            expected="a base model as MODEL",
            fix="sdxl-trt build BASE --refiner REFINER …",
        )
    if refiner.kind != "refiner":
        return UsageError(
            f"{refiner.name} is no refiner",
            got=f"a {refiner.kind} model of {len(refiner.text_encoders)} text encoders",
            expected="a model of one text encoder that is told an aesthetic score",
            fix="--refiner stabilityai/stable-diffusion-xl-refiner-1.0",
        )
    wrong = [name for name in _LATENTS if getattr(base.vae, name) != getattr(refiner.vae, name)]
    got, expected = (", ".join(f"{name} {getattr(m.vae, name)}" for name in wrong) for m in (refiner, base))
    if not wrong and refiner.unet.channels != LATENT_CHANNELS:
        got, expected = f"a UNet of {refiner.unet.channels} channels", f"one of {LATENT_CHANNELS}"
    if not got:
        return None
    return UsageError(
        f"{refiner.name} has other latents than {base.name}",
        got=got,
        expected=expected,
        fix="give the refiner that was made for this base model",
    )
