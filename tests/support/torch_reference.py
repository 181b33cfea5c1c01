"""Inputs of every graph, and what the torch modules that it was traced from give for them, in float32 on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.spec import HISTORY, Column, ModelSpec, TextEncoderSpec, graph_spec

Latent = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One run of a graph."""

    axes: dict[str, int]
    feed: dict[str, NDArray[Any]]
    """Inputs by name; floats as float32."""
    outputs: list[NDArray[np.float32]]
    """Torch's, in the graph's order."""


def load(kind: Any, model: Path, component: str) -> Any:
    """The torch module in float32, from the same files."""
    import torch

    fp16 = any((model / component).glob("*.fp16.safetensors"))
    options = {"variant": "fp16"} if fp16 else {}
    return kind.from_pretrained(model / component, torch_dtype=torch.float32, **options).eval().requires_grad_(False)


def text_probes(model: Path, encoder: TextEncoderSpec, table: NDArray[Any], rows: list[int]) -> Iterator[Probe]:
    """A text encoder on random prompts; `table` holds its token embeddings."""
    import torch
    import transformers

    name = "CLIPTextModelWithProjection" if encoder.name == "text_encoder_2" else "CLIPTextModel"
    module = load(getattr(transformers, name), model, encoder.name)
    for count in rows:
        ids = np.random.default_rng(count).integers(0, encoder.bos, (count, encoder.tokens))
        ids[:, 0] = encoder.bos
        ends = np.arange(count) + 5
        for row, end in enumerate(ends):
            ids[row, end:] = encoder.pad
            ids[row, end] = encoder.eos
        out = module(torch.from_numpy(ids), output_hidden_states=True)
        pooled = out.text_embeds if "Projection" in name else out.pooler_output
        yield Probe(
            axes={"rows": count},
            feed={"embeddings": table[ids].astype(np.float32), "pool_index": ends.astype(np.int32)},
            outputs=[torch.stack(out.hidden_states).numpy(), pooled.numpy()],
        )


def step_inputs(model: ModelSpec, rows: int, slots: int, latent: Latent, seed: int) -> dict[str, NDArray[Any]]:
    """Random values for every input of the step; every slot has rows of its own where there are enough."""
    rng = np.random.default_rng(seed)
    sizes = {"rows": rows, "slots": slots, "tokens": 77, "height": latent[0], "width": latent[1]}
    feed = {
        tensor.name: rng.standard_normal([sizes.get(str(d), d) for d in tensor.shape]).astype(np.float32)
        for tensor in graph_spec("step", model, "float32").inputs
    }
    feed["column"][:, Column.timestep] = rng.integers(0, 1000, (slots, 1))
    feed["column"][:, Column.rescale] = np.linspace(0, 1, slots)[:, None]
    feed["time_ids"] = np.abs(feed["time_ids"]) * 100
    feed["mask"] = (feed["mask"] > 0).astype(np.float32)
    feed["row_slot"] = (np.arange(rows) % slots).astype(np.int32)
    feed["cond_row"] = (np.arange(slots) % rows).astype(np.int32)
    feed["uncond_row"] = ((np.arange(slots) + slots) % rows).astype(np.int32)
    return feed


def step_probe(unet: Any, model: ModelSpec, rows: int, slots: int, latent: Latent) -> Probe:
    """A step of random everything; `unet` is diffusers'."""
    feed = step_inputs(model, rows, slots, latent, seed=rows)
    axes = {"rows": rows, "slots": slots, "tokens": 77, "height": latent[0], "width": latent[1]}
    return Probe(axes=axes, feed=feed, outputs=[each.numpy() for each in step_reference(unet, feed)])


def step_reference(unet: Any, feed: dict[str, np.ndarray]) -> list[Any]:
    """The formulas of sdxl_trt.spec.column, written anew around diffusers' UNet and its own guidance rescale."""
    import torch
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import rescale_noise_cfg

    t = {name: torch.from_numpy(value) for name, value in feed.items()}
    states, x0s = [], []
    for slot, column in enumerate(t["column"]):
        z = t["state"][slot]
        sample = torch.einsum("k,kchw->chw", column[Column.input], z)
        outputs = {}
        for row in {int(t["cond_row"][slot]), int(t["uncond_row"][slot])}:
            own = t["column"][t["row_slot"][row]]
            seen = torch.einsum("k,kchw->chw", own[Column.input], t["state"][t["row_slot"][row]])
            if "extra" in t:
                seen = torch.cat([seen, t["extra"][t["row_slot"][row]]])
            outputs[row] = unet(
                seen[None],
                own[Column.timestep],
                t["text"][row][None],
                timestep_cond=t["guidance_embedding"][row][None] if "guidance_embedding" in t else None,
                added_cond_kwargs={"text_embeds": t["pooled"][row][None], "time_ids": t["time_ids"][row][None]},
            ).sample
        cond, uncond = outputs[int(t["cond_row"][slot])], outputs[int(t["uncond_row"][slot])]
        eps = uncond + column[Column.guidance] * (cond - uncond)
        eps = rescale_noise_cfg(eps, cond, float(column[Column.rescale]))[0]
        transition = column[Column.transition].reshape(HISTORY, HISTORY)
        new = torch.einsum("jk,kchw->jchw", transition, z)
        new += torch.einsum("j,chw->jchw", column[Column.output], eps)
        new += torch.einsum("j,chw->jchw", column[Column.noise], t["noise"][slot])
        kept = column[Column.blend_image] * t["image"][slot] + column[Column.blend_noise] * t["initial_noise"][slot]
        new[0] = t["mask"][slot] * new[0] + (1 - t["mask"][slot]) * kept
        states.append(new)
        x0s.append(column[Column.x0_input] * sample + column[Column.x0_output] * eps)
    return [torch.stack(states), torch.stack(x0s)]


def vae_probes(vae: Any, slots: int, latent: Latent) -> dict[str, Probe]:
    """The VAE's two graphs by name; `vae` is diffusers'."""
    import torch

    rng = torch.Generator().manual_seed(slots)
    latents = torch.randn(slots, 4, *latent, generator=rng)
    pixels = torch.rand(slots, 3, *(8 * edge for edge in latent), generator=rng) * 2 - 1
    mean, std = (
        torch.tensor(getattr(vae.config, f"latents_{which}") or [default] * 4).view(1, 4, 1, 1)
        for which, default in (("mean", 0.0), ("std", 1.0))
    )
    image = vae.decode(latents * std / vae.config.scaling_factor + mean).sample
    moments = vae.encode(pixels).latent_dist.parameters
    axes = {"slots": slots, "height": latent[0], "width": latent[1]}
    return {
        "vae_decoder": Probe(axes=axes, feed={"latents": latents.numpy()}, outputs=[image.numpy()]),
        "vae_encoder": Probe(axes=axes, feed={"image": pixels.numpy()}, outputs=[moments.numpy()]),
    }
