"""Every exported graph against the torch module it was traced from: float32, onnxruntime beside torch on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeness import relative_error
from graph_session import GraphSession
from models import HALF, NAMES, Models

from sdxl_trt.exported import ExportIndex, read_index
from sdxl_trt.spec import COLUMN_WIDTH, HISTORY, Column, graph_spec

REQUIRED = 1e-4
LATENTS = [(16, 24), (18, 14), (17, 23)]  # divisible by 4, by 2, by neither
ROWS = [1, 2, 5]


@pytest.fixture(scope="module", params=NAMES)
def exported(request: pytest.FixtureRequest, models: Models) -> tuple[Path, Path, ExportIndex]:
    folder = models.export(request.param)
    return models.checkpoint(request.param), folder, read_index(folder)


def load(kind: Any, model: Path, component: str) -> Any:
    """The torch module in float32, from the same files."""
    import torch

    fp16 = any((model / component).glob("*.fp16.safetensors"))
    options = {"variant": "fp16"} if fp16 else {}
    return kind.from_pretrained(model / component, torch_dtype=torch.float32, **options).eval().requires_grad_(False)


def check(measured: list[np.ndarray], reference: list[Any], what: str) -> None:
    errors = [relative_error(m, r.numpy(), REQUIRED, what) for m, r in zip(measured, reference, strict=True)]
    assert max(errors) <= REQUIRED


def test_text_encoders(exported: tuple[Path, Path, ExportIndex]) -> None:
    import torch
    import transformers

    model, folder, index = exported
    for encoder in index.model.text_encoders:
        name = "CLIPTextModelWithProjection" if encoder.name == "text_encoder_2" else "CLIPTextModel"
        module = load(getattr(transformers, name), model, encoder.name)
        session = GraphSession(folder, index, encoder.name)
        table = np.load(folder / encoder.name / "token_embedding.npy")
        for rows in ROWS:
            ids = np.random.default_rng(rows).integers(0, encoder.bos, (rows, encoder.tokens))
            ids[:, 0] = encoder.bos
            ends = np.arange(rows) + 5
            for row, end in enumerate(ends):
                ids[row, end:] = encoder.pad
                ids[row, end] = encoder.eos
            out = module(torch.from_numpy(ids), output_hidden_states=True)
            pooled = out.text_embeds if "Projection" in name else out.pooler_output
            feed = {"embeddings": table[ids].astype(np.float32), "pool_index": ends.astype(np.int32)}
            check(session.run(feed), [torch.stack(out.hidden_states), pooled], f"{encoder.name} × {rows}")


def step_inputs(index: ExportIndex, rows: int, slots: int, latent: tuple[int, int], seed: int) -> dict[str, np.ndarray]:
    """Random values for every input of the step; every slot has rows of its own where there are enough."""
    rng = np.random.default_rng(seed)
    sizes = {"rows": rows, "slots": slots, "tokens": 77, "height": latent[0], "width": latent[1]}
    feed = {
        tensor.name: rng.standard_normal([sizes.get(str(d), d) for d in tensor.shape]).astype(np.float32)
        for tensor in graph_spec("step", index.model, "float32").inputs
    }
    feed["column"][:, Column.timestep] = rng.integers(0, 1000, (slots, 1))
    feed["column"][:, Column.rescale] = np.linspace(0, 1, slots)[:, None]
    feed["time_ids"] = np.abs(feed["time_ids"]) * 100
    feed["mask"] = (feed["mask"] > 0).astype(np.float32)
    feed["row_slot"] = (np.arange(rows) % slots).astype(np.int32)
    feed["cond_row"] = (np.arange(slots) % rows).astype(np.int32)
    feed["uncond_row"] = ((np.arange(slots) + slots) % rows).astype(np.int32)
    return feed


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


def test_step(exported: tuple[Path, Path, ExportIndex]) -> None:
    import diffusers

    model, folder, index = exported
    unet = load(diffusers.UNet2DConditionModel, model, "unet")
    session = GraphSession(folder, index, "step")
    for rows, slots, latent in zip(ROWS, (1, 2, 3), LATENTS, strict=True):
        feed = step_inputs(index, rows, slots, latent, seed=rows)
        assert feed["column"].shape == (slots, COLUMN_WIDTH)
        check(session.run(feed), step_reference(unet, feed), f"step {rows} rows, {slots} slots, {latent}")


def test_step_keeps_slots_apart(exported: tuple[Path, Path, ExportIndex]) -> None:
    """A NaN in one slot, and in its rows, reaches no other slot."""
    _, folder, index = exported
    feed = step_inputs(index, rows=4, slots=2, latent=(16, 16), seed=0)
    session = GraphSession(folder, index, "step")
    clean = session.run(feed)
    for name in ("state", "noise", "image"):
        feed[name][1] = np.nan
    feed["text"][feed["row_slot"] == 1] = np.nan
    dirty = session.run(feed)
    assert np.isnan(dirty[0][1]).any()
    for before, after in zip(clean, dirty, strict=True):
        assert np.isfinite(after[0]).all()
        assert np.abs(after[0] - before[0]).max() <= 1e-5 * np.abs(before[0]).max()


def test_constant_output_survives_rescale() -> None:
    """0 / 0 in guidance rescale is guarded."""
    import torch

    from sdxl_trt.export.modules import rescaled

    flat = torch.full((1, 4, 8, 8), 3.0)
    assert torch.equal(rescaled(flat, torch.randn(1, 4, 8, 8), torch.ones(1, 1, 1, 1)), flat)


def test_vae(exported: tuple[Path, Path, ExportIndex]) -> None:
    import diffusers
    import torch

    model, folder, index = exported
    vae = load(diffusers.AutoencoderKL, model, "vae")
    decoder, encoder = GraphSession(folder, index, "vae_decoder"), GraphSession(folder, index, "vae_encoder")
    for slots, latent in zip((1, 2, 3), LATENTS, strict=True):
        rng = torch.Generator().manual_seed(slots)
        latents = torch.randn(slots, 4, *latent, generator=rng)
        pixels = torch.rand(slots, 3, *(8 * edge for edge in latent), generator=rng) * 2 - 1
        mean, std = (
            torch.tensor(getattr(vae.config, f"latents_{which}") or [default] * 4).view(1, 4, 1, 1)
            for which, default in (("mean", 0.0), ("std", 1.0))
        )
        image = vae.decode(latents * std / vae.config.scaling_factor + mean).sample
        check(decoder.run({"latents": latents}), [image], f"vae_decoder {slots} × {latent}")
        moments = vae.encode(pixels).latent_dist.parameters
        check(encoder.run({"image": pixels}), [moments], f"vae_encoder {slots} × {latent}")


def test_bare_unet(models: Models) -> None:
    import diffusers
    import torch

    folder = models.export("demo")
    index = read_index(folder)
    unet = load(diffusers.UNet2DConditionModel, models.checkpoint("demo"), "unet")
    session = GraphSession(folder, index, "unet")
    for rows, latent in zip(ROWS, LATENTS, strict=True):
        step = step_inputs(index, rows, rows, latent, seed=rows)
        feed = {name: step[name] for name in ("text", "pooled", "time_ids")}
        feed |= {"sample": step["noise"], "timestep": step["column"][:, 0]}
        t = {name: torch.from_numpy(value) for name, value in feed.items()}
        added = {"text_embeds": t["pooled"], "time_ids": t["time_ids"]}
        out = unet(t["sample"], t["timestep"], t["text"], added_cond_kwargs=added).sample
        check(session.run(feed), [out], f"unet {rows} rows, {latent}")


@pytest.mark.parametrize("name", HALF)
def test_float16_graphs(models: Models, name: str) -> None:
    """What GPU engines are compiled from, run on the CPU beside the float32 graphs: alike as far as fp16 goes."""
    folder = models.export(name)
    index = read_index(folder)
    rng = np.random.default_rng(0)
    feeds = {"step": step_inputs(index, rows=4, slots=2, latent=(17, 24), seed=0)}
    feeds["vae_decoder"] = {"latents": rng.standard_normal((1, 4, 17, 24)).astype(np.float32)}
    feeds["vae_encoder"] = {"image": rng.uniform(-1, 1, (1, 3, 136, 192)).astype(np.float32)}
    for encoder in index.model.text_encoders:
        embeddings = rng.standard_normal((2, encoder.tokens, encoder.width)).astype(np.float32)
        feeds[encoder.name] = {"embeddings": embeddings, "pool_index": np.array([3, 76], np.int32)}
    for name, feed in feeds.items():
        half = {t.name: feed[t.name].astype(t.dtype) for t in graph_spec(name, index.model, "float16").inputs}
        outputs = zip(
            GraphSession(folder, index, name, "float16").run(half),
            GraphSession(folder, index, name).run(feed),
            strict=True,
        )
        for measured, reference in outputs:
            assert relative_error(measured, reference, 2e-2, f"{name} float16") <= 2e-2
