"""Tensors of the original layout under diffusers' names, by diffusers' own converters, without reading one.

The converters rename tensors, cut OpenCLIP's joint projections in three, drop the 1 × 1 of convolutions and transpose
one matrix. They are run on tensors without values ('meta' tensors): what comes out is a part of something that went
in, and so a place in the same file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sdxl_trt.errors import ExportError
from sdxl_trt.export.layout import ENCODERS, UNET
from sdxl_trt.export.safetensors import TensorRef

_DTYPES = {1: torch.uint8, 2: torch.float16, 4: torch.float32, 8: torch.float64}
"""dtypes by bytes per value: places depend on nothing else."""


def unet_tensors(tensors: dict[str, TensorRef], config: dict[str, Any]) -> dict[str, TensorRef]:
    """A UNet's tensors.

    Args:
        tensors: names start with input_blocks, middle_block, …
        config: diffusers' config of this UNet.
    """
    return _converted(
        {UNET + name: ref for name, ref in tensors.items()}, lambda meta: convert_ldm_unet_checkpoint(meta, config)
    )


def vae_tensors(tensors: dict[str, TensorRef], config: dict[str, Any]) -> dict[str, TensorRef]:
    """A VAE's tensors.

    Args:
        tensors: names start with encoder, decoder, …
        config: diffusers' config of this VAE.
    """
    return _converted(tensors, lambda meta: convert_ldm_vae_checkpoint(meta, config))


def encoder_tensors(tensors: dict[str, TensorRef], prefix: str) -> dict[str, TensorRef]:
    """A text encoder's tensors.

    Args:
        tensors: OpenAI's CLIP in transformers' layout, or an OpenCLIP in its own, without their prefix.
        prefix: theirs.
    """
    named = {prefix + name: ref for name, ref in tensors.items()}
    if prefix == ENCODERS["text_encoder"]:
        return _converted(named, convert_ldm_clip_checkpoint)
    without = SimpleNamespace(config=None)  # a module, asked for its width where there is no projection to show it
    return _converted(named, lambda meta: convert_open_clip_checkpoint(without, meta, prefix))


class _NoCopies(TorchDispatchMode):
    """A tensor's copy is that tensor: what counts is which part of which storage it is."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is torch.ops.aten.clone.default else func(*args, **(kwargs or {}))


def _converted(
    tensors: dict[str, TensorRef], converter: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> dict[str, TensorRef]:
    """What a converter makes of tensors, as places."""
    meta = {name: _meta(ref) for name, ref in tensors.items() if ref.length}
    origins = {_storage(tensor): tensors[name] for name, tensor in meta.items()}
    with _NoCopies():
        converted = converter(dict(meta))
    return {name: _place(name, view, origins[_storage(view)]) for name, view in converted.items()}


def _meta(ref: TensorRef) -> Tensor:
    return torch.empty(ref.shape, dtype=_DTYPES[ref.length // math.prod(ref.shape)], device="meta")


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _place(name: str, view: Tensor, origin: TensorRef) -> TensorRef:
    """Where `view`, a part of the tensor at `origin`, is."""
    transposed = not view.is_contiguous()
    if transposed and not view.T.is_contiguous():
        raise ExportError(f"{name} is no contiguous part of {origin.name}", fix="report this model")
    return TensorRef(
        name=name,
        location=origin.location,
        offset=origin.offset + int(view.storage_offset()) * view.element_size(),
        length=view.numel() * view.element_size(),
        dtype=origin.dtype,
        shape=tuple(view.shape),
        transposed=transposed,
    )
