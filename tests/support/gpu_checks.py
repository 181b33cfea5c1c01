"""What engines on a GPU must keep to. The checks take any device, so that they are tried on the processor first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from closeness import relative_error
from numpy.typing import NDArray
from torch_reference import Probe, load, step_probe, text_probes, vae_probes

from benchmarks.quality import unseen
from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.device import Device, Stream, Work
from sdxl_trt.runtime.engine import Caller, Engine
from sdxl_trt.runtime.loading import Loaded

LATENT = (18, 14)
"""Height and width that engines are compared at: divisible by 2, not by 4."""


class PlainDevice(CudaDevice):
    """A GPU that records nothing: every step is launched piece by piece."""

    def capture(self, work: Work, stream: Stream) -> Work:
        """The work as it is."""
        return work


def psnr(got: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Peak signal-to-noise ratio in dB, the peak being the largest magnitude of what is wanted."""
    error = float(np.sqrt(np.mean(np.square(got.astype(np.float64) - wanted))))
    return math.inf if error == 0 else 20 * math.log10(float(np.abs(wanted).max()) / error)


def engine_errors(loaded: Loaded, checkpoint: Path, device: Device, required: float) -> dict[str, float]:
    """How far each engine's outputs are from torch's in float32: the largest difference over the largest magnitude."""
    return {engine.name: max(_errors(engine, probe, device, required)) for engine, probe in _probes(loaded, checkpoint)}


def _probes(loaded: Loaded, checkpoint: Path) -> Iterator[tuple[Engine, Probe]]:
    import diffusers

    for encoder in loaded.encoders:
        for probe in text_probes(checkpoint, encoder.spec, np.asarray(encoder.embeddings), [2]):
            yield encoder.engine, probe
    unet = load(diffusers.UNet2DConditionModel, checkpoint, "unet")
    yield loaded.step, step_probe(unet, loaded.model, 4, 2, LATENT)
    vae = vae_probes(load(diffusers.AutoencoderKL, checkpoint, "vae"), 1, LATENT)
    yield loaded.decoder, vae["vae_decoder"]
    yield loaded.open_encoder(), vae["vae_encoder"]


def _errors(engine: Engine, probe: Probe, device: Device, required: float) -> Iterator[float]:
    feed = {name: array.astype(engine.inputs[name].dtype) for name, array in probe.feed.items()}
    outputs = Caller(engine, device)(probe.axes, **feed)
    for (name, got), wanted in zip(outputs.items(), probe.outputs, strict=True):
        yield relative_error(got.astype(np.float32), wanted, required, f"{engine.name} {name}")


def latents_psnr(ours: Pipeline, theirs: Any, prompts: int, *, steps: int) -> list[float]:
    """Of the final latents of each of so many unseen prompts; `theirs` is diffusers' pipeline in float32."""
    import torch

    found = []
    for seed, scene in enumerate(unseen(prompts)):
        got = ours(scene.caption, seed=seed, steps=steps, size=(128, 128), output="latents").latents
        wanted = theirs(
            scene.caption,
            num_inference_steps=steps,
            guidance_scale=5.0,
            width=128,
            height=128,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="latent",
        ).images
        found.append(psnr(got, wanted.numpy()))
    return found


def fifth_percentile(values: Sequence[float]) -> float:
    """The value that 95 % of them reach."""
    return float(np.percentile(values, 5))


def resident() -> int:
    """Bytes of this process's memory that are resident now: proc(5), statm."""
    import resource

    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def grown(draw: Callable[[int], object], pictures: int, used: Callable[[], int]) -> int:
    """Bytes in use that so many pictures add, after a tenth of them that are not counted.

    Args:
        draw: makes a picture of a seed.
        pictures: how many are counted.
        used: bytes in use.
    """
    for seed in range(pictures // 10):
        draw(seed)
    before = used()
    for seed in range(pictures):
        draw(seed)
    return used() - before
