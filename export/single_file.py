"""Checkpoints in one file: SDXL in the original layout, as its authors, ComfyUI and most fine-tunes write it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdxl_trt.errors import CheckpointError
from sdxl_trt.export.clip_bpe import clip_tokenizer
from sdxl_trt.export.layout import ENCODERS, UNET, VAE, encoder_prefixes
from sdxl_trt.export.original import encoder_tensors, unet_tensors, vae_tensors
from sdxl_trt.export.parts import Component, Parts, licences_in
from sdxl_trt.export.published import Config, Shapes, encoder_config, published, unet_config, vae_config
from sdxl_trt.export.safetensors import TensorRef, read_header, read_metadata
from sdxl_trt.export.sampling import EDM_KEYS, is_turbo, scheduler_config
from sdxl_trt.export.weights import read_tensor

Tensors = dict[str, TensorRef]

TURBO_SAMPLE_SIZE = 64
"""Latent edge that SDXL Turbo was trained at: 512 pixels."""

PLAYGROUND_SCALING = 0.5
"""Scaling factor of a VAE whose latents are normalised by mean and deviation too (Playground v2.5)."""


def read_file(path: Path) -> Parts:
    """Read a file's header. Its tensors get diffusers' names, and the file the configs and tokenizers it lacks.

    A file may lack the VAE; its component then has no tensors.

    Raises:
        CheckpointError: it is no SDXL in the original layout (says what it is), or is damaged.
    """
    file = _File(path=path, header=read_header(path.parent, path.name), metadata=read_metadata(path))
    prefixes = encoder_prefixes(file.header, path)
    configs = published("base" if prefixes == ENCODERS else "refiner")
    components = {name: file.encoder(name, prefix, configs[name]) for name, prefix in prefixes.items()}
    components |= {"unet": file.unet(configs["unet"]), "vae": file.vae(configs["vae"])}
    return Parts(
        name=path.stem,
        index=configs["model_index"],
        scheduler=scheduler_config(configs["scheduler"], file.header, file.metadata, file.numbers()),
        components=components,
        tokenizers={name: clip_tokenizer(name) for name in prefixes},
        licences=licences_in(path.parent),
    )


@dataclass(frozen=True, kw_only=True)
class _File:
    """A file whose header was read."""

    path: Path
    header: Tensors
    metadata: dict[str, str]

    def numbers(self) -> dict[str, list[float]]:
        """Values of the small tensors that say how to sample."""
        found = {name: read_tensor(self._files(), self.header[name]) for name in EDM_KEYS if name in self.header}
        return {name: [float(value) for value in array.reshape(-1)] for name, array in found.items()}

    def encoder(self, name: str, prefix: str, config: Config) -> Component:
        """A text encoder."""
        with expecting_whole(self.path):
            tensors = encoder_tensors(under(self.header, prefix), prefix)
            return self._component(name, encoder_config(config, shapes_of(tensors)), tensors)

    def unet(self, config: Config) -> Component:
        """The UNet."""
        tensors = under(self.header, UNET)
        if is_turbo(self.metadata):
            config = config | {"sample_size": TURBO_SAMPLE_SIZE}
        with expecting_whole(self.path):
            config = unet_config(config, shapes_of(tensors))
            return self._component("unet", config, unet_tensors(tensors, config))

    def vae(self, config: Config) -> Component:
        """The VAE; one without tensors where the file has none."""
        tensors, numbers = under(self.header, VAE), self.numbers()
        if {"edm_mean", "edm_std"} <= numbers.keys():
            latents = {"latents_mean": numbers["edm_mean"], "latents_std": numbers["edm_std"]}
            config = config | latents | {"scaling_factor": PLAYGROUND_SCALING}
        if not tensors:
            return Component(name="vae", config=config, tensors={}, files={})
        with expecting_whole(self.path):
            config = vae_config(config, shapes_of(tensors))
            return self._component("vae", config, vae_tensors(tensors, config))

    def _component(self, name: str, config: Config, tensors: Tensors) -> Component:
        return Component(name=name, config=config, tensors=tensors, files=self._files())

    def _files(self) -> dict[str, Path]:
        return {self.path.name: self.path.absolute()}


def under(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): ref for name, ref in tensors.items() if name.startswith(prefix)}


@contextlib.contextmanager
def expecting_whole(path: Path) -> Iterator[None]:
    """Turn the absence of tensors, or shapes that no SDXL has, into a refusal of the file.

    Raises:
        CheckpointError: instead of what deriving a config or diffusers' converters raise.
    """
    try:
        yield
    except (LookupError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} lacks tensors, or has them in other shapes than an SDXL",
            got=f"no {error.args[0]}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}",
            expected="an SDXL in the original layout",
            fix="compare it with the published file",
        ) from error


def shapes_of(tensors: Tensors) -> Shapes:
    """The tensors' shapes, by their names."""
    return {name: ref.shape for name, ref in tensors.items()}
