"""Textual inversion (Gal et al., arXiv 2208.01618): learned token embeddings, read from a safetensors file.

What is read, n vectors each:
  * `clip_l` [n, 768] and `clip_g` [n, 1280] (A1111, kohya-ss/sd-scripts, ComfyUI), for SDXL's first and second text
    encoder; or one of them. diffusers' advanced training names them `text_encoders_0` and `text_encoders_1`.
  * one tensor [n, C] or [C], called `emb_params` or by the word itself (diffusers): for the first encoder of width C.
    For the other one its name is plain text, as in diffusers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime.tokenizer import check_text
from sdxl_trt.safetensors import SafetensorsError, StoredTensor, read_floats, read_header
from sdxl_trt.spec import TextEncoderSpec

_ENCODERS = {
    "clip_l": "text_encoder",
    "clip_g": "text_encoder_2",
    "text_encoders_0": "text_encoder",
    "text_encoders_1": "text_encoder_2",
}
_NAMELESS = "emb_params"
_PICKLED = (".pt", ".bin", ".ckpt", ".pth")


@dataclass(frozen=True, kw_only=True, eq=False)
class Inversion:
    """A word and what stands for it."""

    name: str
    vectors: dict[str, NDArray[np.float32]]
    """By the encoder's name, [n, C]: what takes the place of token embeddings."""


def read_inversion(path: Path, specs: Sequence[TextEncoderSpec], name: str | None = None) -> Inversion:
    """Read a file.

    Args:
        path: the file.
        specs: of the model's text encoders.
        name: the word it is for; the file's own name for it, or else its file name, when not given.

    Raises:
        UsageError: it is missing, not safetensors, of another form, for encoders of another width, has more vectors
            than a chunk takes, or numbers that are not finite.
    """
    if path.suffix.lower() in _PICKLED:
        raise _unreadable(path, "a pickle, which runs whatever code is in it when it is loaded")
    try:
        tensors, _ = read_header(path)
        places = _places(path, tensors, specs)
        vectors = {spec: read_floats(path, tensors[key]) for key, spec in places.items()}
    except SafetensorsError as error:
        raise _unreadable(path, str(error)) from error
    if not all(np.isfinite(array).all() for array in vectors.values()):
        raise _unfit(path, "NaN or infinity", "finite numbers", "train it again, or take an earlier step of it")
    own = {*tensors} - {*_ENCODERS, _NAMELESS}
    word = (name or next(iter(own), path.stem)).strip()
    check_text(word)
    return Inversion(
        name=word,
        vectors={spec.name: array.reshape(-1, spec.width) for spec, array in vectors.items()},
    )


def _places(
    path: Path, tensors: dict[str, StoredTensor], specs: Sequence[TextEncoderSpec]
) -> dict[str, TextEncoderSpec]:
    """Which encoder each tensor is for, every shape checked."""
    if len(tensors) != 1 and not (tensors and _ENCODERS.keys() >= tensors.keys()):
        shown = ", ".join(f"{key} {list(tensor.shape)}" for key, tensor in list(tensors.items())[:4])
        expected = "clip_l and clip_g, or one tensor"
        raise _unfit(path, f"{len(tensors)} tensors: {shown}", expected, "a LoRA or a checkpoint goes elsewhere")
    places, known = {}, {spec.name for spec in specs}
    for key, tensor in tensors.items():
        name = _ENCODERS.get(key)
        if name and name not in known and len(tensors) > 1:
            continue  # for the text encoder that a refiner does not have
        fitting = [spec for spec in specs if name in (None, spec.name)]
        found = next((spec for spec in fitting if _fits(tensor.shape, spec)), None)
        if found is None:
            wanted = " or ".join(
                f"[n, {spec.width}] for {spec.name}, n up to {spec.tokens - 2}" for spec in fitting or specs
            )
            raise _unfit(path, f"{key} {list(tensor.shape)}", wanted, "take the embedding made for SDXL")
        places[key] = found
    return places


def _fits(shape: tuple[int, ...], spec: TextEncoderSpec) -> bool:
    """[n, C] or [C], and no longer than a chunk."""
    count = shape[0] if len(shape) == 2 else 1
    return len(shape) in (1, 2) and shape[-1] == spec.width and 0 < count <= spec.tokens - 2


def _unreadable(path: Path, got: str) -> UsageError:
    return UsageError(
        f"the textual inversion {path} cannot be read",
        got=got,
        expected="a whole .safetensors file",
        fix="download it again as .safetensors; or convert a .pt or .bin where torch is: "
        "data = torch.load(FILE, weights_only=True); safetensors.torch.save_file({'emb_params': "
        "data['string_to_param']['*'].contiguous()} if 'string_to_param' in data else data, 'NAME.safetensors')",
    )


def _unfit(path: Path, got: str, expected: str, fix: str) -> UsageError:
    return UsageError(f"{path} is no textual inversion for this model", got=got, expected=expected, fix=fix)
