"""Long and weighted prompts, blends, clip skip and a caller's own embeddings, on the demo model.

The reference is A1111's algorithm, and compel's, written plainly in torch over transformers' own tokenizers and text
encoders (float32 on the CPU, float16 weights upcast); for latents it is diffusers, given the reference's embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeness import relative_error
from numpy.typing import NDArray

from sdxl_trt.errors import PromptTooLong, UsageError
from sdxl_trt.runtime import Pipeline, PromptEmbeds
from sdxl_trt.runtime.device import HostDevice
from sdxl_trt.runtime.loading import Loaded, load
from sdxl_trt.runtime.prompts.emphasis import emphasise
from sdxl_trt.spec import Range

pytestmark = pytest.mark.usefixtures("one_torch_thread")

REQUIRED = 5e-6  # of embeddings: largest difference over largest magnitude
LATENTS = 1e-3
PROMPT = "a large red circle on a white background"
SETTINGS: dict[str, Any] = {"seed": 7, "steps": 5}

Piece = tuple[str, float]
Weigh = Callable[[Any, Any, Any], Any]
"""Hidden states [77, C], weights [77, 1] and the empty prompt's states, into weighted states."""


@pytest.fixture(scope="module")
def loaded(demo_bundle: Path) -> Loaded:
    return load(demo_bundle)


@pytest.fixture(scope="module")
def ours(loaded: Loaded) -> Pipeline:
    return Pipeline(loaded, HostDevice())


@pytest.fixture(scope="module")
def theirs(demo_model: Path) -> Any:
    import torch
    from diffusers import StableDiffusionXLPipeline

    reference = StableDiffusionXLPipeline.from_pretrained(demo_model, dtype=torch.float32, variant="fp16")
    reference.set_progress_bar_config(disable=True)
    return reference


def original(hidden: Any, weights: Any, empty: Any) -> Any:
    """A1111's 'Original' emphasis."""
    weighted = hidden * weights
    return weighted * (hidden.mean() / weighted.mean())


WEIGH: dict[str, Weigh] = {
    "a1111": original,
    "a1111-no-norm": lambda hidden, weights, empty: hidden * weights,
    "interpolate": lambda hidden, weights, empty: empty + (hidden - empty) * weights,
}


def split(tokens: list[tuple[int, float]], comma: int) -> list[list[tuple[int, float]]]:
    """Into 75 at most; where a comma is among the last 20 and none follows, after the last comma."""
    chunks = []
    while len(tokens) > 75:
        end = 75
        commas = [place for place in range(75) if tokens[place][0] == comma]
        if tokens[75][0] != comma and commas and 75 - commas[-1] <= 20:
            end = commas[-1] + 1
        chunks.append(tokens[:end])
        tokens = tokens[end:]
    return [*chunks, tokens]


def reference(
    theirs: Any, pieces: list[Piece], weigh: Weigh, *, second: list[Piece] | None = None, layer: int = -2
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Hidden states [tokens, D] and pooled output [P] of a prompt, given as text and weights; "BREAK" ends a chunk."""
    import torch

    encoders = ((theirs.tokenizer, theirs.text_encoder), (theirs.tokenizer_2, theirs.text_encoder_2))
    outputs = []
    for (tokenizer, encoder), own in zip(encoders, (pieces, second or pieces), strict=True):
        parts: list[list[tuple[int, float]]] = [[]]
        for text, weight in own:
            if text == "BREAK":
                parts.append([])
                continue
            parts[-1] += [(token, weight) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
        comma = tokenizer.convert_tokens_to_ids(",</w>")
        chunks = [chunk for part in parts for chunk in split(part, comma)]
        outputs.append([run(tokenizer, encoder, chunk, weigh, layer) for chunk in chunks])
    count = max(map(len, outputs))
    for (tokenizer, encoder), states in zip(encoders, outputs, strict=True):
        states.extend([run(tokenizer, encoder, [], weigh, layer)] * (count - len(states)))
    hidden = torch.cat([torch.cat([state for state, _ in states]) for states in outputs], dim=-1)
    return hidden.numpy(), outputs[1][0][1].numpy()


def run(tokenizer: Any, encoder: Any, chunk: list[tuple[int, float]], weigh: Weigh, layer: int) -> tuple[Any, Any]:
    import torch

    def states(tokens: list[int]) -> Any:
        padding = [tokenizer.pad_token_id] * (75 - len(tokens))
        ids = [tokenizer.bos_token_id, *tokens, tokenizer.eos_token_id, *padding]
        with torch.inference_mode():
            return encoder(torch.tensor([ids]), output_hidden_states=True)

    out = states([token for token, _ in chunk])
    weights = torch.ones(77, 1)
    weights[1 : len(chunk) + 1, 0] = torch.tensor([weight for _, weight in chunk])
    hidden, empty = out.hidden_states[layer][0], states([]).hidden_states[layer][0]
    return weigh(hidden, weights, empty), out.get("text_embeds", torch.zeros(1))[0]


def error(got: PromptEmbeds, wanted: tuple[Any, Any], what: str) -> float:
    parts = (("hidden", got.hidden, wanted[0]), ("pooled", got.pooled, wanted[1]))
    return max(relative_error(ours, theirs, REQUIRED, f"{what}, {part}") for part, ours, theirs in parts)


LONG = "a small blue star on the left, a red square; " * 8
WEIGHTED: dict[str, list[Piece]] = {
    "a (large:1.3) red [circle] on a (white) background": [
        ("a ", 1.0),
        ("large", 1.3),
        (" red ", 1.0),
        ("circle", 1 / 1.1),
        (" on a ", 1.0),
        ("white", 1.1),
        (" background", 1.0),
    ],
    "a red circle BREAK (a blue star:0.4)": [("a red circle", 1.0), ("BREAK", -1.0), ("a blue star", 0.4)],
    f"({LONG}:1.2) and [a cross": [(LONG, 1.2), (" and ", 1.0), ("a cross", 1 / 1.1)],
    "BREAK (!:1.5) one, two": [("BREAK", -1.0), ("!", 1.5), (" one, two", 1.0)],
    "x " * 60 + "(, y :1.5)" + "x " * 30: [("x " * 60, 1.0), (", y ", 1.5), ("x " * 30, 1.0)],
    "x " * 50 + ", y " + "x " * 30: [("x " * 50 + ", y " + "x " * 30, 1.0)],
    "x " * 75 + ", (y:0)": [("x " * 75 + ", ", 1.0), ("y", 0.0)],
}


@pytest.mark.parametrize("weighting", WEIGH)
@pytest.mark.parametrize("prompt", WEIGHTED, ids=range(len(WEIGHTED)))
def test_weighted_prompts_are_the_references(ours: Pipeline, theirs: Any, prompt: str, weighting: str) -> None:
    wanted = reference(theirs, WEIGHTED[prompt], WEIGH[weighting])
    got = ours.encode(prompt, weighting=weighting)
    assert error(got, wanted, f"{prompt[:30]!r} {weighting}") <= REQUIRED
    if weighting != "interpolate":
        return
    plain = ours.encode("".join(text for text, _ in WEIGHTED[prompt]).replace("BREAK", " BREAK "), weighting="a1111")
    np.testing.assert_array_equal(got.pooled, plain.pooled)  # weights leave it alone


def test_one_percent_in_one_weight_is_noticed(ours: Pipeline, theirs: Any) -> None:
    """What the bound above is worth."""
    prompt = next(iter(WEIGHTED))
    for weighting, weigh in WEIGH.items():
        wanted = reference(theirs, WEIGHTED[prompt], weigh)
        got = ours.encode(prompt.replace("1.3", "1.313"), weighting=weighting)
        assert error(got, wanted, f"{weighting}, a weight 1 % off, which must fail") > REQUIRED


def test_without_weighting_brackets_are_text_and_long_prompts_go_on(ours: Pipeline, theirs: Any) -> None:
    for prompt in ("a (red:1.3) [circle] BREAK \\(", LONG * 2, ""):
        wanted = reference(theirs, [(prompt, 1.0), ("", 1.0)], WEIGH["a1111-no-norm"])
        assert error(ours.encode(prompt), wanted, f"{prompt[:20]!r}, off") <= REQUIRED


def test_editing_is_refused_where_brackets_are_read(ours: Pipeline) -> None:
    """In any of the four prompts, before anything runs."""
    prompt = "a [red:blue:0.5] circle"
    ours.encode(prompt)
    for name in ("prompt", "prompt_2", "negative_prompt", "negative_prompt_2"):
        texts = {"prompt": "a star", "negative_prompt": "a cross", name: prompt}
        with pytest.raises(UsageError, match="prompt editing is not supported"):
            ours(**texts, weighting="a1111", callback=lambda step: pytest.fail("it ran"))  # type: ignore[arg-type]


def test_half_precision_is_weighted_in_single_and_keeps_its_mean() -> None:
    hidden = np.random.default_rng(0).normal(0.1, 10, (77, 640)).astype(np.float16)
    weights = (1.0, *[1.3] * 20, *[1.0] * 56)
    weighted = emphasise(hidden, weights, base=None, keep_mean=True)
    assert weighted.dtype == np.float16
    exact = original(hidden.astype(np.float64), np.array(weights)[:, None], None)
    bound = 2.0**-10  # half an ulp of float16, and the mean's own rounding
    assert relative_error(weighted, exact, bound, "float16") <= bound
    assert emphasise(hidden, (1.0,) * 77, base=None, keep_mean=True) is hidden
    zeros = np.zeros((77, 4), np.float32)
    np.testing.assert_array_equal(emphasise(zeros, weights, base=None, keep_mean=True), zeros)


def test_plain_text_is_the_same_with_every_weighting(ours: Pipeline) -> None:
    plain = ours.encode(PROMPT)
    for weighting in WEIGH:
        np.testing.assert_array_equal(ours.encode(PROMPT, weighting=weighting).hidden, plain.hidden)


def test_a_longer_second_prompt_lengthens_the_first(ours: Pipeline, theirs: Any) -> None:
    wanted = reference(theirs, [(PROMPT, 1.0)], original, second=[(LONG, 1.0)])
    assert wanted[0].shape[0] == 154
    assert error(ours.encode(PROMPT, prompt_2=LONG), wanted, "prompt_2") <= REQUIRED


def test_blends_are_compels(ours: Pipeline, theirs: Any) -> None:
    """compel: shorter prompts lengthened by empty ones, weights scaled to a sum of 1, the weighted sum."""
    texts, weights = (PROMPT, LONG, "a blue star"), np.array([2.0, 1.0, -0.5])
    parts = [reference(theirs, [(text, 1.0)], original) for text in texts]
    empty = reference(theirs, [("", 1.0)], original)[0]
    hidden = [np.concatenate([part, empty])[:154] for part, _ in parts]
    share = (weights / weights.sum()).astype(np.float32)
    wanted = np.tensordot(share, np.stack(hidden), 1), np.tensordot(share, np.stack([part for _, part in parts]), 1)
    got = ours.encode(list(zip(texts, weights.tolist(), strict=True)))
    assert error(got, wanted, "blend") <= REQUIRED
    alone = ours.encode([(PROMPT, 0.3)])
    np.testing.assert_allclose(alone.hidden, ours.encode(PROMPT).hidden, rtol=1e-6)


def latents(theirs: Any, **settings: Any) -> NDArray[np.float32]:
    import torch

    generator = torch.Generator("cpu").manual_seed(SETTINGS["seed"])
    embeds = {name: torch.from_numpy(value)[None] for name, value in settings.items() if isinstance(value, np.ndarray)}
    size = {"width": 128, "height": 128, "num_inference_steps": SETTINGS["steps"], "guidance_scale": 5.0}
    out = theirs(**{**size, **settings, **embeds}, generator=generator, output_type="latent").images
    return np.asarray(out.numpy())


def test_latents_of_long_weighted_prompts_are_diffusers(ours: Pipeline, theirs: Any) -> None:
    prompt, negative = list(WEIGHTED)[2], "(a blue cross:1.4)"
    hidden, pooled = reference(theirs, WEIGHTED[prompt], original)
    short, negative_pooled = reference(theirs, [("a blue cross", 1.4)], original)
    empty = reference(theirs, [("", 1.0)], original)[0]
    zeros = {"negative_prompt_embeds": np.zeros_like(hidden), "negative_pooled_prompt_embeds": np.zeros_like(pooled)}
    padded = np.concatenate([short, *[empty] * (len(hidden) // 77 - 1)])
    encoded = {"negative_prompt_embeds": padded, "negative_pooled_prompt_embeds": negative_pooled}
    for text, theirs_negative in ((None, zeros), (negative, encoded)):
        wanted = latents(theirs, prompt_embeds=hidden, pooled_prompt_embeds=pooled, **theirs_negative)
        got = ours(prompt, negative_prompt=text, weighting="a1111", output="latents", **SETTINGS).latents
        assert relative_error(got, wanted, LATENTS, f"{len(hidden)} tokens, negative {text!r}") <= LATENTS
    flipped = ours("a star", negative_prompt=LONG, guidance=1.0, output="latents", **SETTINGS).latents
    alone = ours("a star", guidance=1.0, output="latents", **SETTINGS).latents
    np.testing.assert_array_equal(flipped, alone)  # without guidance the negative prompt is not read


def test_prompts_of_many_lengths_follow_one_another(ours: Pipeline) -> None:
    first = ours(PROMPT, output="latents", **SETTINGS).latents
    ours(LONG * 2, output="latents", **SETTINGS)
    ours(PROMPT, negative_prompt=LONG, output="latents", **SETTINGS)
    np.testing.assert_array_equal(ours(PROMPT, output="latents", **SETTINGS).latents, first)


@pytest.mark.parametrize("clip_skip", [0, 1, 2])
@pytest.mark.parametrize("negative", [None, "a small blue square"])
def test_clip_skip_is_diffusers(ours: Pipeline, theirs: Any, clip_skip: int, negative: str | None) -> None:
    settings = {"prompt": PROMPT, "negative_prompt": negative, "clip_skip": clip_skip}
    got = ours(**settings, output="latents", **SETTINGS).latents
    assert relative_error(got, latents(theirs, **settings), LATENTS, f"clip_skip {clip_skip}") <= LATENTS


def test_clip_skip_does_something(ours: Pipeline) -> None:
    plain, skipped = (ours.encode(PROMPT, clip_skip=skip) for skip in (None, 1))
    assert np.abs(plain.hidden - skipped.hidden).max() > 0.1
    np.testing.assert_array_equal(plain.pooled, skipped.pooled)


def random_embeds(seed: int, tokens: int = 77) -> PromptEmbeds:
    generator = np.random.default_rng(seed)
    hidden, pooled = (generator.standard_normal(shape, np.float32) for shape in ((tokens, 128), (64,)))
    return PromptEmbeds(hidden=hidden, pooled=pooled)


@pytest.mark.parametrize("tokens", [77, 100, 231])
@pytest.mark.parametrize("own_negative", [False, True])
def test_given_embeddings_are_diffusers(ours: Pipeline, theirs: Any, tokens: int, own_negative: bool) -> None:
    prompt, negative = random_embeds(1, tokens), random_embeds(2, tokens)
    given: dict[str, Any] = {"prompt_embeds": prompt}
    arrays = {"prompt_embeds": prompt.hidden, "pooled_prompt_embeds": prompt.pooled}
    if own_negative:
        given["negative_prompt_embeds"] = negative
        arrays |= {"negative_prompt_embeds": negative.hidden, "negative_pooled_prompt_embeds": negative.pooled}
    got = ours(**given, output="latents", **SETTINGS).latents
    assert relative_error(got, latents(theirs, **arrays), LATENTS, f"{tokens} tokens") <= LATENTS


def test_what_was_encoded_gives_the_same_again(ours: Pipeline) -> None:
    settings = {"weighting": "a1111", "output": "latents", **SETTINGS}
    wanted = ours("(a star", negative_prompt=LONG, **settings).latents
    star, negative = ours.encode("(a star", weighting="a1111"), ours.encode(LONG)
    double = PromptEmbeds(hidden=star.hidden.astype(np.float64), pooled=star.pooled.astype(np.float64))
    for given in (
        {"prompt_embeds": star, "negative_prompt": LONG},
        {"prompt_embeds": double, "negative_prompt_embeds": negative},
        {"prompt": "(a star", "negative_prompt_embeds": negative},
    ):
        got = ours(**given, **settings).latents
        assert relative_error(got, wanted, LATENTS, " ".join(given)) <= LATENTS


@pytest.mark.parametrize(
    ("prompt", "dropped", "chunks"),
    [
        ("x " * 300 + "y  <|endoftext|> z", "y  <|endoftext|> z", 5),
        ("x " * 299 + "猫 and more", "猫 and more", 5),
        ("a BREAK " * 6 + "b", "", 7),
        ("x " * 375 + "z", "x " * 75 + "z", 6),
    ],
)
def test_prompts_beyond_the_profile_quote_what_would_be_dropped(
    ours: Pipeline, prompt: str, dropped: str, chunks: int
) -> None:
    for settings in ({"prompt": prompt}, {"prompt": "", "prompt_2": prompt}, {"prompt": "", "negative_prompt": prompt}):
        with pytest.raises(PromptTooLong) as caught:
            ours(**settings, weighting="a1111", steps=1)
        assert caught.value.got.startswith(f"{chunks} chunks, of which this would be dropped: ")
        assert repr(dropped)[1:-1] in caught.value.got
        assert "at most 308 tokens" in caught.value.expected
        assert f"--prompt-chunks {chunks}" in caught.value.fix
    assert ours.encode("x " * 300).hidden.shape == (308, 128)


def test_a_profile_of_one_chunk_takes_no_more(loaded: Loaded) -> None:
    """As engines may be built: then a second chunk is refused before anything runs."""
    narrow = replace(loaded.target.profile, tokens=Range(min=77, opt=77, max=77))
    one = Pipeline(replace(loaded, target=replace(loaded.target, profile=narrow)), HostDevice())
    assert one.encode("x " * 75).hidden.shape == (77, 128)
    for refused in ({"prompt": "x " * 76}, {"prompt_embeds": random_embeds(1, 78)}):
        with pytest.raises(PromptTooLong, match="prompt-chunks 2"):
            one(**refused, steps=1)


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"clip_skip": 3}, "3", "0 to 2"),
    ({"clip_skip": -1}, "-1", "0 to 2"),
    ({"clip_skip": 1.0}, "1.0", "0 to 2"),
    ({"clip_skip": True}, "True", "0 to 2"),
    ({"weighting": True}, "True", "off"),
    ({"weighting": "compel"}, "", "interpolate"),
    ({"prompt": "(a:1.2.3)", "weighting": "a1111"}, "1.2.3", "1.3"),
    ({"prompt_embeds": random_embeds(1)}, "as text too", "one of the two"),
    ({"prompt": None}, "NoneType", "text"),
    ({"prompt": None, "prompt_embeds": np.zeros((77, 128))}, "ndarray", "PromptEmbeds"),
    ({"prompt": None, "prompt_embeds": random_embeds(1, 76)}, "76 tokens", "77 to 308"),
    ({"prompt": None, "prompt_embeds": random_embeds(1, 309)}, "309 tokens", "308 tokens"),
    ({"negative_prompt_embeds": random_embeds(1, 100)}, "77 and 100", "multiple of 77"),
    ({"negative_prompt_embeds": replace(random_embeds(1), pooled=np.zeros(63))}, "float64 [63]", "[64]"),
    ({"negative_prompt_embeds": replace(random_embeds(1), hidden=np.zeros((1, 77, 128)))}, "[1, 77, 128]", "128"),
    ({"negative_prompt_embeds": replace(random_embeds(1), hidden=np.zeros((77, 127)))}, "[77, 127]", "[tokens, 128]"),
    ({"negative_prompt_embeds": replace(random_embeds(1), hidden=np.full((77, 128), np.nan))}, "finite", "finite"),
    ({"negative_prompt_embeds": replace(random_embeds(1), hidden=np.zeros((77, 128), int))}, "int64", "floats"),
    ({"negative_prompt_embeds": replace(random_embeds(1), pooled=[0.0] * 64)}, "list", "[64]"),
]


@pytest.mark.parametrize(
    ("settings", "got", "expected"), BAD, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_bad_setting_is_refused(ours: Pipeline, settings: dict[str, Any], got: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        ours(**{"prompt": PROMPT, "steps": 1, **settings})
    assert got in caught.value.got
    assert expected in caught.value.expected
    assert caught.value.fix or "weighting" in settings


@pytest.mark.parametrize("prompt", [None, 5, [], [("a", 0)], [("a", 1), ("b", -1)], [("a", np.nan)], [(1, 1)], ["ab"]])
def test_what_is_no_blend_is_refused(ours: Pipeline, prompt: Any) -> None:
    with pytest.raises(UsageError, match="prompt cannot be used") as caught:
        ours.encode(prompt)
    assert caught.value.expected


@pytest.mark.parametrize("prompt", ["\ud800", [("a \udc00", 1.0)]])
def test_what_is_no_unicode_is_refused(ours: Pipeline, prompt: Any) -> None:
    with pytest.raises(UsageError, match="Unicode"):
        ours.encode(prompt, weighting="a1111")
    with pytest.raises(UsageError, match="not text"):
        ours.encode("a", prompt_2=5, weighting="a1111")
