"""Textual inversion on the demo model against diffusers' load_textual_inversion, with random vectors.

Both pool at the end token. As configured (eos_token_id 2), transformers pools at the largest id, which is that of an
added token; it says itself that this is wrong with added tokens, and what to set instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeness import relative_error
from numpy.typing import NDArray

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.device import HostDevice
from sdxl_trt.runtime.loading import Loaded, load

pytestmark = pytest.mark.usefixtures("one_torch_thread")

REQUIRED, LATENTS = 5e-6, 1e-3
END = 603
ENCODERS = ("clip_l", "clip_g")
PROMPTS = {
    "<cat-toy>": ("a large {} circle on a white background", "{}", "A photo of {}, {} and x{}x"),
    "mystyle": ("a large {} circle on a white background", "{}: {},{}"),
}


@pytest.fixture(scope="module")
def loaded(demo_bundle: Path) -> Loaded:
    return load(demo_bundle)


@pytest.fixture
def ours(loaded: Loaded) -> Pipeline:
    return Pipeline(loaded, HostDevice())


@pytest.fixture
def theirs(demo_model: Path) -> Any:
    import torch
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(demo_model, dtype=torch.float32, variant="fp16")
    pipe.set_progress_bar_config(disable=True)
    for encoder in (pipe.text_encoder, pipe.text_encoder_2):
        for module in encoder.modules():
            if hasattr(module, "eos_token_id"):
                module.eos_token_id = END
    return pipe


def vectors(count: int, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """About as large as the demo model's own embeddings."""
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal((count, 64)).astype(np.float32) * 0.3 for name in ENCODERS}


def save(path: Path, tensors: dict[str, NDArray[Any]]) -> Path:
    from safetensors.numpy import save_file

    save_file(tensors, path)
    return path


def teach(pipe: Any, tensors: dict[str, NDArray[Any]], token: str) -> None:
    """diffusers, as its documentation has it for SDXL: one call for each encoder."""
    import torch

    parts = {"clip_l": (pipe.tokenizer, pipe.text_encoder), "clip_g": (pipe.tokenizer_2, pipe.text_encoder_2)}
    for name, array in tensors.items():
        tokenizer, encoder = parts[name]
        pipe.load_textual_inversion(
            {token: torch.from_numpy(array)}, token=token, tokenizer=tokenizer, text_encoder=encoder
        )


def check(ours: Pipeline, theirs: Any, prompt: str) -> None:
    import torch

    with torch.inference_mode():
        hidden, _, pooled, _ = theirs.encode_prompt(prompt, do_classifier_free_guidance=False)
    got = ours.encode(prompt)
    for what, array, wanted in (("hidden", got.hidden, hidden[0]), ("pooled", got.pooled, pooled[0])):
        assert relative_error(array[:77], wanted.numpy(), REQUIRED, f"{prompt[:30]!r} {what}") <= REQUIRED


@pytest.mark.parametrize("used", [ENCODERS, ENCODERS[:1], ENCODERS[1:]], ids="+".join)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("token", PROMPTS)
def test_prompts_are_diffusers(
    ours: Pipeline, theirs: Any, tmp_path: Path, token: str, count: int, used: tuple[str, ...]
) -> None:
    tensors = {name: array for name, array in vectors(count).items() if name in used}
    assert ours.load_textual_inversion(save(tmp_path / f"{token}.safetensors", tensors)) == token
    teach(theirs, tensors, token)
    for prompt in PROMPTS[token]:
        check(ours, theirs, prompt.format(*[token] * 3))
    first = PROMPTS[token][0]
    if count == 1:  # of several vectors, diffusers finds but the first where the word is in other letters
        check(ours, theirs, first.format(token.upper()))
    assert np.abs(ours.encode(first.format(token)).hidden - ours.encode(first.format("red")).hidden).max() > 0.1


@pytest.mark.parametrize("count", [1, 3])
def test_latents_are_diffusers(ours: Pipeline, theirs: Any, tmp_path: Path, count: int) -> None:
    import torch

    ours.load_textual_inversion(save(tmp_path / "x.safetensors", vectors(count)), token="<toy>")
    teach(theirs, vectors(count), "<toy>")
    settings = {"prompt": "a <toy> circle", "negative_prompt": "<toy>"}
    wanted = theirs(
        **settings,
        width=128,
        height=128,
        num_inference_steps=5,
        guidance_scale=5.0,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="latent",
    ).images.numpy()
    got = ours(**settings, seed=7, steps=5, output="latents").latents
    assert relative_error(got, wanted, LATENTS, f"{count} vectors") <= LATENTS


def test_one_percent_in_one_vector_is_noticed(ours: Pipeline, theirs: Any, tmp_path: Path) -> None:
    tensors = vectors(3)
    teach(theirs, tensors, "<toy>")
    tensors["clip_g"][1] *= 1.01
    ours.load_textual_inversion(save(tmp_path / "x.safetensors", tensors), token="<toy>")
    with pytest.raises(AssertionError):
        check(ours, theirs, "a <toy>")


FORMS: dict[str, tuple[dict[str, str], str, tuple[str, ...]]] = {
    "both": ({"clip_l": "clip_l", "clip_g": "clip_g"}, "file", ENCODERS),
    "diffusers, advanced": ({"text_encoders_0": "clip_l", "text_encoders_1": "clip_g"}, "file", ENCODERS),
    "second alone": ({"clip_g": "clip_g"}, "file", ENCODERS[1:]),
    "emb_params": ({"emb_params": "clip_l"}, "file", ENCODERS[:1]),
    "diffusers": ({"<toy>": "clip_l"}, "<toy>", ENCODERS[:1]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_form_of_file_is_read(loaded: Loaded, ours: Pipeline, tmp_path: Path, form: str, dtype: str) -> None:
    import torch
    from safetensors.torch import save_file

    keys, name, used = FORMS[form]
    rounded = {key: torch.from_numpy(array).to(getattr(torch, dtype)) for key, array in vectors(2).items()}
    save_file({key: rounded[source] for key, source in keys.items()}, tmp_path / "file.safetensors")
    assert ours.load_textual_inversion(tmp_path / "file.safetensors") == name
    plain = Pipeline(loaded, HostDevice())
    exact = {key: rounded[key].float().numpy() for key in used}
    plain.load_textual_inversion(save(tmp_path / "other.safetensors", exact), token=name)
    np.testing.assert_array_equal(ours.encode(f"a {name}").hidden, plain.encode(f"a {name}").hidden)


def test_one_vector_may_lack_its_axis(ours: Pipeline, tmp_path: Path) -> None:
    ours.load_textual_inversion(save(tmp_path / "a.safetensors", {"<one>": vectors(1)["clip_l"][0]}))
    ours.load_textual_inversion(save(tmp_path / "b.safetensors", {"<two>": vectors(1)["clip_l"]}))
    hidden = [ours.encode(f"a {name}").hidden[:, :64] for name in ("<one>", "<two>")]
    np.testing.assert_array_equal(*hidden)


def test_a_word_is_not_found_in_longer_ones_and_the_longest_wins(ours: Pipeline, tmp_path: Path) -> None:
    before = ours.encode("my-styles amy-style my-style_2").hidden
    for seed, token in enumerate(("my-style", "my-style-2")):
        ours.load_textual_inversion(save(tmp_path / "x.safetensors", vectors(2, seed)), token=token)
    np.testing.assert_array_equal(ours.encode("my-styles amy-style my-style_2").hidden, before)
    short, long = ours.encode("a my-style."), ours.encode("a my-style-2.")
    assert np.abs(short.hidden - long.hidden).max() > 0.1
    np.testing.assert_array_equal(ours.encode("a MY-Style-2.").hidden, long.hidden)


def test_weights_act_on_every_vector_and_a_chunk_never_cuts_a_word(ours: Pipeline, tmp_path: Path) -> None:
    ours.load_textual_inversion(save(tmp_path / "x.safetensors", vectors(3)), token="<toy>")
    plain = ours.encode("a <toy> x").hidden
    weighted = ours.encode("a (<toy>:2) x", weighting="a1111-no-norm").hidden
    expected = plain.copy()
    expected[2:5] *= 2
    np.testing.assert_allclose(weighted, expected, rtol=1e-6)
    cut = ours.encode("x " * 74 + "<toy>").hidden
    np.testing.assert_array_equal(cut, ours.encode("x " * 74 + "BREAK <toy>", weighting="a1111").hidden)


def bad(path: Path, tensors: dict[str, Any]) -> Path:
    return save(path / "bad.safetensors", {name: np.zeros(shape, np.float32) for name, shape in tensors.items()})


@pytest.mark.parametrize(
    ("tensors", "got", "expected"),
    [
        ({"clip_l": (2, 768)}, "clip_l [2, 768]", "[n, 64] for text_encoder,"),
        ({"clip_l": (2, 64), "clip_g": (2, 1280)}, "clip_g [2, 1280]", "[n, 64] for text_encoder_2"),
        ({"<toy>": (2, 1024)}, "<toy> [2, 1024]", "[n, 64] for text_encoder, n up to 75 or [n, 64]"),
        ({"emb_params": (76, 64)}, "[76, 64]", "n up to 75"),
        ({"emb_params": (0, 64)}, "[0, 64]", "n up to 75"),
        ({"emb_params": (1, 2, 64)}, "[1, 2, 64]", "n up to 75"),
        ({"lora_a": (2, 64), "lora_b": (2, 64)}, "2 tensors: lora_a [2, 64]", "clip_l and clip_g"),
        ({"clip_l": (2, 64), "other": (2, 64)}, "2 tensors", "one tensor"),
        ({}, "0 tensors", "one tensor"),
    ],
)
def test_files_for_other_models_are_refused(
    ours: Pipeline, tmp_path: Path, tensors: dict[str, Any], got: str, expected: str
) -> None:
    with pytest.raises(UsageError, match=r"bad\.safetensors is no textual inversion for this model") as caught:
        ours.load_textual_inversion(bad(tmp_path, tensors), token="<toy>")
    assert got in caught.value.got
    assert expected in caught.value.expected
    assert caught.value.fix


def test_what_is_not_safetensors_is_refused(ours: Pipeline, tmp_path: Path) -> None:
    import torch

    torch.save({"<toy>": torch.zeros(1, 64)}, tmp_path / "toy.bin")
    (tmp_path / "renamed.safetensors").write_bytes((tmp_path / "toy.bin").read_bytes())
    whole = save(tmp_path / "whole.safetensors", vectors(2)).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-1])
    integers = save(tmp_path / "integers.safetensors", {"emb_params": np.zeros((1, 64), np.int32)})
    for file in ("toy.bin", "toy.pt", "renamed.safetensors", "cut.safetensors", "nowhere.safetensors", integers.name):
        with pytest.raises(UsageError, match="cannot be read") as caught:
            ours.load_textual_inversion(tmp_path / file)
        assert caught.value.got
        assert "safetensors.torch.save_file" in caught.value.fix
    infinite = {"emb_params": np.full((1, 64), np.inf, np.float32)}
    with pytest.raises(UsageError, match="no textual inversion") as caught:
        ours.load_textual_inversion(save(tmp_path / "infinite.safetensors", infinite))
    assert "NaN or infinity" in caught.value.got


def test_the_conversion_that_errors_name_works(ours: Pipeline, tmp_path: Path) -> None:
    import safetensors.torch
    import torch

    array = vectors(2)["clip_l"]
    old = {"string_to_param": {"*": torch.from_numpy(array)}, "string_to_token": {"*": 265}, "name": "old"}
    for word, content in (("old", old), ("concept", {"concept": torch.from_numpy(array)})):
        torch.save(content, tmp_path / "learned.pt")
        with pytest.raises(UsageError) as caught:
            ours.load_textual_inversion(tmp_path / "learned.pt")
        program = (
            caught.value.fix.partition("torch is: ")[2].replace("FILE", "file").replace("'NAME.", "folder + '/old.")
        )
        variables = {
            "torch": torch,
            "safetensors": safetensors,
            "file": tmp_path / "learned.pt",
            "folder": str(tmp_path),
        }
        for statement in program.split("; "):
            exec(statement, variables)
        assert ours.load_textual_inversion(tmp_path / "old.safetensors") == word


def test_words_that_mean_something_are_refused_and_nothing_changes(ours: Pipeline, tmp_path: Path) -> None:
    file = save(tmp_path / "toy.safetensors", vectors(2))
    ours.load_textual_inversion(file)
    before = ours.encode("a toy red circle").hidden
    for token, got in (("toy", "loaded already"), ("TOY", "loaded already"), ("red", "has itself"), (" ", "nothing")):
        with pytest.raises(UsageError, match="cannot be called") as caught:
            ours.load_textual_inversion(file, token=token)
        assert got in caught.value.got
        assert "--embedding NAME=FILE" in caught.value.fix
    np.testing.assert_array_equal(ours.encode("a toy red circle").hidden, before)


def test_a_word_for_one_encoder_may_follow_for_the_other(loaded: Loaded, ours: Pipeline, tmp_path: Path) -> None:
    tensors = vectors(2)
    for name in ENCODERS:
        ours.load_textual_inversion(save(tmp_path / "x.safetensors", {name: tensors[name]}), token="<toy>")
    both = Pipeline(loaded, HostDevice())
    both.load_textual_inversion(save(tmp_path / "x.safetensors", tensors), token="<toy>")
    np.testing.assert_array_equal(ours.encode("a <toy>").hidden, both.encode("a <toy>").hidden)
