"""Every exported graph against the torch module it was traced from: float32, onnxruntime beside torch on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from closeness import relative_error
from graph_session import GraphSession
from models import HALF, NAMES, Models
from torch_reference import load, step_inputs, step_probe, text_probes, vae_probes

from sdxl_trt.exported import ExportIndex, read_index
from sdxl_trt.spec import COLUMN_WIDTH, graph_spec

REQUIRED = 1e-4
LATENTS = [(16, 24), (18, 14), (17, 23)]  # divisible by 4, by 2, by neither
ROWS = [1, 2, 5]


@pytest.fixture(scope="module", params=NAMES)
def exported(request: pytest.FixtureRequest, models: Models) -> tuple[Path, Path, ExportIndex]:
    folder = models.export(request.param)
    return models.checkpoint(request.param), folder, read_index(folder)


def check(measured: list[np.ndarray], reference: list[np.ndarray], what: str) -> None:
    errors = [relative_error(m, r, REQUIRED, what) for m, r in zip(measured, reference, strict=True)]
    assert max(errors) <= REQUIRED


def test_text_encoders(exported: tuple[Path, Path, ExportIndex]) -> None:
    model, folder, index = exported
    for encoder in index.model.text_encoders:
        session = GraphSession(folder, index, encoder.name)
        table = np.load(folder / encoder.name / "token_embedding.npy")
        for probe in text_probes(model, encoder, table, ROWS):
            check(session.run(probe.feed), probe.outputs, f"{encoder.name} × {probe.axes}")


def test_step(exported: tuple[Path, Path, ExportIndex]) -> None:
    import diffusers

    model, folder, index = exported
    unet = load(diffusers.UNet2DConditionModel, model, "unet")
    session = GraphSession(folder, index, "step")
    for rows, slots, latent in zip(ROWS, (1, 2, 3), LATENTS, strict=True):
        probe = step_probe(unet, index.model, rows, slots, latent)
        assert probe.feed["column"].shape == (slots, COLUMN_WIDTH)
        check(session.run(probe.feed), probe.outputs, f"step {rows} rows, {slots} slots, {latent}")


def test_step_keeps_slots_apart(exported: tuple[Path, Path, ExportIndex]) -> None:
    """A NaN in one slot, and in its rows, reaches no other slot."""
    _, folder, index = exported
    feed = step_inputs(index.model, rows=4, slots=2, latent=(16, 16), seed=0)
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

    model, folder, index = exported
    vae = load(diffusers.AutoencoderKL, model, "vae")
    for slots, latent in zip((1, 2, 3), LATENTS, strict=True):
        for name, probe in vae_probes(vae, slots, latent).items():
            check(GraphSession(folder, index, name).run(probe.feed), probe.outputs, f"{name} {slots} × {latent}")


def test_bare_unet(models: Models) -> None:
    import diffusers
    import torch

    folder = models.export("demo")
    index = read_index(folder)
    unet = load(diffusers.UNet2DConditionModel, models.checkpoint("demo"), "unet")
    session = GraphSession(folder, index, "unet")
    for rows, latent in zip(ROWS, LATENTS, strict=True):
        step = step_inputs(index.model, rows, rows, latent, seed=rows)
        feed = {name: step[name] for name in ("text", "pooled", "time_ids")}
        feed |= {"sample": step["noise"], "timestep": step["column"][:, 0]}
        t = {name: torch.from_numpy(value) for name, value in feed.items()}
        added = {"text_embeds": t["pooled"], "time_ids": t["time_ids"]}
        out = unet(t["sample"], t["timestep"], t["text"], added_cond_kwargs=added).sample
        check(session.run(feed), [out.numpy()], f"unet {rows} rows, {latent}")


@pytest.mark.parametrize("name", HALF)
def test_float16_graphs(models: Models, name: str) -> None:
    """What GPU engines are compiled from, run on the CPU beside the float32 graphs: alike as far as fp16 goes."""
    folder = models.export(name)
    index = read_index(folder)
    rng = np.random.default_rng(0)
    feeds = {"step": step_inputs(index.model, rows=4, slots=2, latent=(17, 24), seed=0)}
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
