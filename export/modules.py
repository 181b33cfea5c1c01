"""The torch modules that become graphs: each wraps a part of SDXL so that its tensors are those of `sdxl_trt.spec`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdxl_trt.spec import HISTORY, Column
from sdxl_trt.spec.graphs import LATENT_CHANNELS


class TextEncoder(nn.Module):
    """A CLIP text encoder that takes embeddings instead of ids, and gives every layer's output.

    Args:
        model: transformers' CLIPTextModel or CLIPTextModelWithProjection.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, embeddings: Tensor, pool_index: Tensor) -> tuple[Tensor, Tensor]:
        """Looked-up embeddings [rows, tokens, C] and the token to pool at [rows] → hidden [layers + 1, rows, tokens, C]
        (entry 0 the embeddings with positions, none normalised, as transformers' `hidden_states`), pooled [rows, P].
        """
        text = getattr(self.model, "text_model", self.model)
        hidden = embeddings + text.embeddings.position_embedding.weight
        states = [hidden]
        for layer in text.encoder.layers:
            hidden = layer(hidden, None, is_causal=True)
            states.append(hidden)
        width = hidden.shape[-1]
        index = pool_index.to(torch.int64)[:, None, None].expand(-1, 1, width)
        pooled = text.final_layer_norm(hidden.gather(1, index)[:, 0])
        if hasattr(self.model, "text_projection"):
            pooled = self.model.text_projection(pooled)
        return torch.stack(states), pooled


class _InDtype(nn.Module):
    """A module whose output is cast: ONNX, unlike torch, does not mix dtypes by itself."""

    def __init__(self, inner: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype = inner, dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).to(self.dtype)


class Unet(nn.Module):
    """The bare network, conditioned per row."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.guided = model.config.time_cond_proj_dim is not None
        # The sinusoids of size and crop are float32 whatever the network is, and are then joined to the pooled text.
        model.add_time_proj = _InDtype(model.add_time_proj, model.dtype)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        text: Tensor,
        pooled: Tensor,
        time_ids: Tensor,
        guidance_embedding: Tensor | None = None,
    ) -> Tensor:
        """[rows, C, h, w], [rows], [rows, S, D], [rows, P], [rows, T], [rows, G] → output [rows, 4, h, w]."""
        return self.model(
            sample,
            timestep,
            encoder_hidden_states=text,
            timestep_cond=guidance_embedding,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids},
            return_dict=False,
        )[0]


class Step(nn.Module):
    """One step of every image in flight: gather rows, UNet, guidance, sampler update, inpainting blend.

    Slots never touch each other: rows are gathered by index, so a NaN in one stays there. Everything around the UNet
    is float32. The arithmetic is that of `sdxl_trt.spec.column`.
    """

    def __init__(self, unet: Unet) -> None:
        super().__init__()
        self.unet = unet
        self.dtype = unet.model.dtype
        self.inpaints = unet.model.config.in_channels > LATENT_CHANNELS

    def forward(self, state: Tensor, column: Tensor, noise: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        """Tensors as in `sdxl_trt.spec.graphs` → new_state [slots, K, 4, h, w], x0 [slots, 4, h, w]."""
        mask, image, initial_noise, *rest_ = rest
        extra = rest_.pop(0) if self.inpaints else None
        cond_row, uncond_row, row_slot, *conditioning = rest_

        def field(where: slice) -> Tensor:
            return column[:, where, None, None]

        sample = (state * field(Column.input)[..., None]).sum(1)
        rows = sample if extra is None else torch.cat([sample, extra], 1)
        output = self.unet(
            rows.index_select(0, row_slot).to(self.dtype),
            column[:, Column.timestep.start].index_select(0, row_slot),
            *conditioning,
        ).float()
        cond, uncond = output.index_select(0, cond_row), output.index_select(0, uncond_row)
        guided = rescaled(uncond + field(Column.guidance) * (cond - uncond), cond, field(Column.rescale))
        x0 = field(Column.x0_input) * sample + field(Column.x0_output) * guided

        transition = column[:, Column.transition].unflatten(1, (HISTORY, HISTORY))[..., None, None, None]
        moved = (transition * state[:, None]).sum(2)
        moved = moved + column[:, Column.output, None, None, None] * guided[:, None]
        moved = moved + column[:, Column.noise, None, None, None] * noise[:, None]
        kept = field(Column.blend_image) * image + field(Column.blend_noise) * initial_noise
        blended = mask * moved[:, 0] + (1 - mask) * kept
        return torch.cat([blended[:, None], moved[:, 1:]], 1), x0


def rescaled(guided: Tensor, cond: Tensor, amount: Tensor) -> Tensor:
    """Guidance rescale: mix in the guided output with the conditional one's spread (arXiv 2305.08891, equations 15–16).

    [slots, 4, h, w] twice, amount φ [slots, 1, 1, 1]. A constant output, whose spread is 0, is left as it is.
    """
    spread_cond, spread_guided = _spread(cond), _spread(guided)
    flat = spread_guided == 0
    ratio = torch.where(flat, 1.0, spread_cond / torch.where(flat, 1.0, spread_guided))
    return guided * (1 + amount * (ratio - 1))


def _spread(x: Tensor) -> Tensor:
    centred = x - x.mean((1, 2, 3), keepdim=True)
    return centred.square().mean((1, 2, 3), keepdim=True).sqrt()


class VaeDecoder(nn.Module):
    """Latents as the UNet has them into pixels."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, latents: Tensor) -> Tensor:
        """[slots, 4, h, w] float32 → image [slots, 3, 8h, 8w] float32, about −1 to 1."""
        config = self.model.config
        latents = latents / config.scaling_factor
        if config.latents_mean is not None and config.latents_std is not None:
            scales = zip(latents.split(1, 1), config.latents_std, config.latents_mean, strict=True)
            latents = torch.cat([channel * std + mean for channel, std, mean in scales], 1)
        return self.model.decode(latents.to(self.model.dtype), return_dict=False)[0].float()


class VaeEncoder(nn.Module):
    """Pixels into the moments of the VAE's own latents."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """[slots, 3, 8h, 8w] float32, −1 to 1 → mean and log-variance [slots, 8, h, w] float32."""
        hidden = self.model.encoder(image.to(self.model.dtype))
        if self.model.quant_conv is not None:
            hidden = self.model.quant_conv(hidden)
        return hidden.float()


class HalfAttention:
    """diffusers attention processor: the attention product alone in fp16, around it float32.

    For a VAE that overflows in fp16: its activations grow in the residual stream, while queries, keys and values come
    from normalised ones. A 1024² picture has 16,384 tokens: in fp16 their scores take 0.5 GB instead of 1.1, on tensor
    cores.
    """

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """[slots, C, h, w] → [slots, C, h, w]."""
        batch, channels, height, width = hidden_states.shape
        normal = attn.group_norm(hidden_states.flatten(2)).transpose(1, 2)
        query, key, value = (
            projection(normal).half().unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for projection in (attn.to_q, attn.to_k, attn.to_v)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, scale=attn.scale)
        mixed = attn.to_out[0](mixed.transpose(1, 2).flatten(2).float())
        mixed = mixed.transpose(1, 2).reshape(batch, channels, height, width)
        return (mixed + hidden_states) / attn.rescale_output_factor
