"""What an engine host must know of a checkpoint: widths, scales and conventions, read from its config files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TextEncoderSpec:
    """One CLIP text encoder and its tokenizer."""

    name: str
    """Graph name: text_encoder or text_encoder_2."""
    width: int
    """C: channels of the hidden states and of a token embedding."""
    hidden: int
    """Entries of the hidden output: the embeddings and every layer's output."""
    pooled: int
    """Channels of the pooled output (after the projection where there is one)."""
    tokens: int
    """Positions the encoder reads (77)."""
    vocabulary: int
    bos: int
    eos: int
    pad: int
    pool_at: str
    """'argmax' (legacy configs, eos_token_id 2: the largest id) or 'eos' (the first end token)."""


@dataclass(frozen=True, kw_only=True)
class UNetSpec:
    """Widths of a UNet's inputs."""

    channels: int
    """Latent channels it reads: 4, or 9 for an inpainting UNet (4 + mask + 4 of the masked image)."""
    text: int
    """D: width of the text conditioning (2048 in SDXL base, 1280 in the refiner)."""
    pooled: int
    """P: width of the pooled text conditioning (1280)."""
    time_ids: int
    """T: 6 in base (original size, crop, target size), 5 in the refiner (original size, crop, aesthetic score)."""
    guidance_embedding: int
    """G: width of the guidance embedding of distilled models (LCM); 0 where the UNet has none."""
    sample_size: int
    """Native latent edge (128 in SDXL)."""


@dataclass(frozen=True, kw_only=True)
class VaeSpec:
    """Scales between the VAE's latents and the UNet's: unet = (vae − mean) · scaling_factor / std."""

    scaling_factor: float
    force_upcast: bool
    """The VAE overflows in fp16, so its graphs stay in fp32 (attention alone in fp16)."""
    latents_mean: tuple[float, ...] = ()
    latents_std: tuple[float, ...] = ()
    sample_size: int = 1024
    """Edge in pixels of the pictures that it was trained on; of its tiles, too."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A checkpoint as its users at run time see it."""

    name: str
    content: str
    """SHA-256 over all weights, configs and tokenizers that were exported."""
    kind: str
    """'base' or 'refiner' (one text encoder, aesthetic score)."""
    text_encoders: tuple[TextEncoderSpec, ...]
    unet: UNetSpec
    vae: VaeSpec
    zero_negative: bool
    """A negative prompt that is not given is zeros, not the encoded empty text (force_zeros_for_empty_prompt)."""
    scheduler: dict[str, Any] = field(default_factory=dict)
    """scheduler_config.json as it stands."""

    @property
    def native_size(self) -> tuple[int, int]:
        """(width, height) in pixels the model was trained at."""
        edge = self.unet.sample_size * 8
        return edge, edge
