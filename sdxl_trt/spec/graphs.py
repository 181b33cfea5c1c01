"""The signature of every graph: names, dtypes and shapes of its tensors, widths from the checkpoint.

A shape holds integers and axis names. Axes: `rows` (UNet evaluations in a call, or prompts in a text encoder's),
`slots` (images in flight), `height` and `width` (of the latent, an eighth of the picture's), `tokens`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sdxl_trt.spec.column import COLUMN_WIDTH, HISTORY
from sdxl_trt.spec.model import ModelSpec, TextEncoderSpec

LATENT_CHANNELS = 4

GRAPHS = ("text_encoder", "text_encoder_2", "step", "vae_decoder", "vae_encoder", "unet")
"""Every graph there is; `unet` (the bare network, for comparison with torch and with peers) only on request."""


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output; `shape` holds a size or an axis's name per dimension."""

    name: str
    dtype: str
    """numpy's name: float32, float16 or int32."""
    shape: tuple[int | str, ...]

    def at(self, axes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape with its axes filled in; `8*height` is eight times that axis."""
        return tuple(size if isinstance(size, int) else _length(size, axes) for size in self.shape)

    def bytes_at(self, axes: Mapping[str, int]) -> int:
        """Bytes of the tensor."""
        return math.prod(self.at(axes)) * np.dtype(self.dtype).itemsize


def _length(name: str, axes: Mapping[str, int]) -> int:
    factor, _, axis = name.rpartition("*")
    return int(factor or 1) * axes[axis]


@dataclass(frozen=True, kw_only=True)
class GraphSpec:
    """A graph's name and its tensors, in the order the ONNX file has them."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the dynamic axes, each once, in order of appearance."""
        named = (d for tensor in self.inputs for d in tensor.shape if isinstance(d, str))
        return tuple(dict.fromkeys(named))


def _tensor(name: str, dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def model_graphs(model: ModelSpec) -> tuple[str, ...]:
    """The graphs that a model needs to make pictures, in the order they run (the encoder last, for image inputs)."""
    return (*(encoder.name for encoder in model.text_encoders), "step", "vae_decoder", "vae_encoder")


def graph_spec(name: str, model: ModelSpec, precision: str) -> GraphSpec:
    """The signature of graph `name` for a model.

    Args:
        name: one of `GRAPHS`.
        model: gives the widths.
        precision: 'float16' or 'float32': dtype of the UNet's and text encoders' own tensors. State, time ids and the
            VAE's tensors are float32 in both.
    """
    for encoder in model.text_encoders:
        if encoder.name == name:
            return _text_encoder(encoder, precision)
    builders = {"step": _step, "unet": _unet}
    if name in builders:
        return builders[name](model, precision)
    return {"vae_decoder": _VAE_DECODER, "vae_encoder": _VAE_ENCODER}[name]


def _text_encoder(encoder: TextEncoderSpec, dtype: str) -> GraphSpec:
    return GraphSpec(
        name=encoder.name,
        inputs=(
            _tensor("embeddings", dtype, "rows", encoder.tokens, encoder.width),
            _tensor("pool_index", "int32", "rows"),
        ),
        outputs=(
            _tensor("hidden", dtype, encoder.hidden, "rows", encoder.tokens, encoder.width),
            _tensor("pooled", dtype, "rows", encoder.pooled),
        ),
    )


def _row_inputs(model: ModelSpec, dtype: str) -> tuple[TensorSpec, ...]:
    """What conditions each row, in a step as in the bare UNet."""
    unet = model.unet
    guided = (_tensor("guidance_embedding", dtype, "rows", unet.guidance_embedding),)
    return (
        _tensor("text", dtype, "rows", "tokens", unet.text),
        _tensor("pooled", dtype, "rows", unet.pooled),
        _tensor("time_ids", "float32", "rows", unet.time_ids),
        *(guided if unet.guidance_embedding else ()),
    )


def _step(model: ModelSpec, dtype: str) -> GraphSpec:
    latent = ("slots", LATENT_CHANNELS, "height", "width")
    state = ("slots", HISTORY, LATENT_CHANNELS, "height", "width")
    extra_channels = model.unet.channels - LATENT_CHANNELS
    extra = (_tensor("extra", "float32", "slots", extra_channels, "height", "width"),)
    return GraphSpec(
        name="step",
        inputs=(
            _tensor("state", "float32", *state),
            _tensor("column", "float32", "slots", COLUMN_WIDTH),
            _tensor("noise", "float32", *latent),
            _tensor("mask", "float32", "slots", 1, "height", "width"),
            _tensor("image", "float32", *latent),
            _tensor("initial_noise", "float32", *latent),
            *(extra if extra_channels else ()),
            _tensor("cond_row", "int32", "slots"),
            _tensor("uncond_row", "int32", "slots"),
            _tensor("row_slot", "int32", "rows"),
            *_row_inputs(model, dtype),
        ),
        outputs=(
            _tensor("new_state", "float32", *state),
            _tensor("x0", "float32", *latent),
        ),
    )


def _unet(model: ModelSpec, dtype: str) -> GraphSpec:
    return GraphSpec(
        name="unet",
        inputs=(
            _tensor("sample", dtype, "rows", model.unet.channels, "height", "width"),
            _tensor("timestep", "float32", "rows"),
            *_row_inputs(model, dtype),
        ),
        outputs=(_tensor("output", dtype, "rows", LATENT_CHANNELS, "height", "width"),),
    )


_VAE_DECODER = GraphSpec(
    name="vae_decoder",
    inputs=(_tensor("latents", "float32", "slots", LATENT_CHANNELS, "height", "width"),),
    outputs=(_tensor("image", "float32", "slots", 3, "8*height", "8*width"),),
)
"""Latents as the UNet has them (scaled) into pixels, about −1 to 1, not clamped."""

_VAE_ENCODER = GraphSpec(
    name="vae_encoder",
    inputs=(_tensor("image", "float32", "slots", 3, "8*height", "8*width"),),
    outputs=(_tensor("moments", "float32", "slots", 2 * LATENT_CHANNELS, "height", "width"),),
)
"""Pixels into mean and log-variance of the VAE's own latents (unscaled), never a sample of them."""
