"""The exported tokenizers against transformers' CLIPTokenizer, and the pooled position against its CLIPTextModel."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sdxl_trt
from sdxl_trt.errors import BundleError, CheckpointError, UsageError
from sdxl_trt.export.tokenizers import CanonicalTokenizer, canonical_tokenizer
from sdxl_trt.runtime.prompts.chunks import Chunker
from sdxl_trt.runtime.tokenizer import Tokenizer, check_text
from sdxl_trt.spec.model import TextEncoderSpec

DEMO = Path(next(iter(sdxl_trt.__path__))) / "demo" / "sdxl-shapes"
FOLDERS = ("tokenizer", "tokenizer_2")
# As in SDXL's own repositories; `normalized` there makes '<|ENDOFTEXT|>' an end token too.
FORMS = ("sdxl", "json")
STRINGS = 10_000
COMPARED = 9_000
TOKENS = 77

WORDS = """
a large small red green blue circle square star on the of to left white background photo it's we'll cat 's
"""
TEXTS = """
Ünïcödé café naïve STRASSE straße İstanbul ǅ ﬁne Ⅷ ½ ² ٣ 한국
😀 👩‍👩‍👧 🇩🇪 ❤️ 🏳️‍🌈 猫 かわいい カ 中文 الليل ไทย हिन्दी ∑ → ™ ﷺ
! !! !!!! !? ... , ; : (red:1.2) [x] {y} " ' `` -- _ # @ $ % & * + = / \\ | ~ ^ < > <| |>
0 7 42 1234567 3.14 1e9 50% 2024-01-01 16:9
<|endoftext|> <|startoftext|> <|ENDOFTEXT|> <|endoftext|>x x<|startoftext|> <|endoftext <|endoftext|><|endoftext|>
"""
SPACES = [" ", "  ", "\t", "\n", "\r\n", " \n \t ", "\u00a0", "\u3000", "\u2003", "\u200b", "\ufeff", "\u0085"]
ODD = [
    "e\u0301",
    "a\u0308\u0301",
    "\u1112\u1161\u11ab",
    "\u0301",
    "\0",
    "\x07",
    "\u00ad",
    "\u200d",
    "\ufffd",
    "\U0010ffff",
]
PIECES = [*TEXTS.split(), *SPACES, *ODD]


def strings(seed: int) -> list[str]:
    generator = random.Random(seed)
    made = []
    for _ in range(STRINGS):
        room, parts = generator.choice([0, 8, 30, 60, 60, 72, 85]), list[str]()
        while len("".join(parts).encode()) < room:
            parts.append(piece(generator))
        made.append("".join(parts))
    return made


def piece(generator: random.Random) -> str:
    kind = generator.random()
    if kind < 0.45:
        word = generator.choice(WORDS.split())
        return generator.choice([word, word.upper(), word.title(), f"{word},", f"{word} "]) + " "
    if kind < 0.85:
        return generator.choice(PIECES) + generator.choice(["", "", " "])
    if kind < 0.95:
        return "".join(chr(generator.randrange(32, 127)) for _ in range(generator.randrange(1, 6)))
    code = generator.randrange(0x110000)
    return chr(code) if not 0xD800 <= code < 0xE000 else "\ud7ff"


def copy_form(source: Path, target: Path, form: str) -> Path:
    """A tokenizer folder with the files of one form only."""
    target.mkdir()
    kept = ("tokenizer.json",) if form == "json" else ("vocab.json", "merges.txt")
    for name in (*kept, "tokenizer_config.json"):
        shutil.copy(source / name, target)
    if form == "sdxl":
        config = json.loads((source / "tokenizer_config.json").read_text())
        flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        named = {f"{name}_token": {"content": config[f"{name}_token"], **flags} for name in ("bos", "eos", "unk")}
        shared = {"pad_token": config["pad_token"]}
        own = {name: {"__type": "AddedToken", **value} for name, value in named.items()}
        rest = {
            "model_max_length": 77,
            "tokenizer_class": "CLIPTokenizer",
            "add_prefix_space": False,
            "errors": "replace",
        }
        (target / "tokenizer_config.json").write_text(json.dumps({**own, **shared, **rest, "do_lower_case": True}))
        (target / "special_tokens_map.json").write_text(json.dumps({**named, **shared}))
    return target


def spec_for(made: CanonicalTokenizer, **changes: Any) -> TextEncoderSpec:
    fields = {"name": "text_encoder", "width": 64, "hidden": 4, "pooled": 64, "tokens": TOKENS, "pool_at": "argmax"}
    ids = {"vocabulary": made.vocabulary, "bos": made.bos, "eos": made.eos, "pad": made.pad}
    return TextEncoderSpec(**{**fields, **ids, **changes})


def load(folder: Path, **changes: Any) -> Tokenizer:
    made = canonical_tokenizer(folder)
    return Tokenizer(made.json, spec_for(made, **changes))


def encode(folder: Path, prompt: str, **changes: Any) -> np.ndarray[Any, Any]:
    """The ids of a prompt [chunks, tokens], as they go into the text encoder."""
    return laid_out(load(folder, **changes), spec_for(canonical_tokenizer(folder), **changes), prompt)


def laid_out(tokenizer: Tokenizer, spec: TextEncoderSpec, prompt: str) -> np.ndarray[Any, Any]:
    chunker = Chunker(spec, None)
    for token in tokenizer.tokens(prompt):
        chunker.add((token,), 1.0)
    return np.array([chunk.ids for chunk in chunker.finish()], np.int32)


def reference(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def assert_ids_are_transformers(folder: Path, prompts: list[str], enough: int) -> None:
    """Equal ids where the prompt fits, and in further chunks what transformers would truncate."""
    ours, theirs = load(folder), reference(folder)
    spec = spec_for(canonical_tokenizer(folder))
    expected = theirs(prompts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="np")[
        "input_ids"
    ]
    whole = theirs(prompts)["input_ids"]
    compared = 0
    for prompt, ids, every in zip(prompts, expected, whole, strict=True):
        got = laid_out(ours, spec, prompt)
        if len(every) > TOKENS:
            tokens = len(every) - 2
            assert len(got) == -(-tokens // (TOKENS - 2))
            assert got[:, 1:-1].ravel()[:tokens].tolist() == every[1:-1], prompt
            continue
        assert got.tolist() == [ids.tolist()], prompt
        compared += 1
    print(f"{folder.name}: {compared} of {len(prompts)} prompts compared and equal, required {enough}")
    assert compared >= enough
    assert compared < len(prompts), "some prompts must be long, or chunks were not compared"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FOLDERS)
def test_ids_are_transformers(tmp_path: Path, name: str, form: str) -> None:
    folder = copy_form(DEMO / name, tmp_path / name, form)
    assert_ids_are_transformers(folder, strings(FOLDERS.index(name)), COMPARED)


@pytest.fixture
def other_folder(tmp_path: Path) -> Path:
    """A tokenizer with special tokens that are not CLIP's: lowest ids, another pad token, few merges."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    words = ["<pad>", "<s>", "</s>", *letters, *(f"{letter}</w>" for letter in letters), "ca", "cat</w>", "an</w>"]
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\na n</w>\n")
    config = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "</s>",
        "pad_token": "<pad>",
        "model_max_length": 77,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_other_special_tokens(other_folder: Path) -> None:
    made = canonical_tokenizer(other_folder)
    assert (made.bos, made.eos, made.pad, made.vocabulary) == (1, 2, 0, 518)
    prompts = [text.replace("endoftext", "x") for text in strings(2)[:2000]] + ["a cat</s> <pad> <s>cat can"]
    assert_ids_are_transformers(other_folder, prompts, 1_500)
    tokenizer = load(other_folder, pool_at="eos", eos=2)
    ids = encode(other_folder, "cat", pool_at="eos", eos=2)[0]
    assert ids.tolist() == [1, 516, 2] + [0] * 74
    assert tokenizer.pool_index(ids) == 2


@pytest.mark.parametrize("name", FOLDERS)
def test_both_forms_give_the_same_bytes_every_time(tmp_path: Path, name: str) -> None:
    made = {form: canonical_tokenizer(copy_form(DEMO / name, tmp_path / form, form)) for form in ("vocab", "json")}
    assert made["vocab"] == made["json"] == canonical_tokenizer(DEMO / name)
    document = json.loads(made["json"].json)
    assert document["truncation"] is None
    assert document["padding"] is None
    theirs = reference(DEMO / name)
    special = (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
    assert (made["json"].bos, made["json"].eos, made["json"].pad) == special
    assert made["json"].vocabulary == len(theirs) == 604


def test_a_prompts_own_exclamation_marks_differ_between_the_two(tmp_path: Path) -> None:
    first, second = (encode(DEMO / name, "cat!!")[0].tolist() for name in FOLDERS)
    assert first != second
    assert second[-1] == 0
    assert second.count(0) == TOKENS - 5
    assert first.count(0) == 1, "the first has a token for the inner '!' and one for the last of a word"


AUDITED: list[str] = []


def test_neither_network_nor_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference(DEMO / "tokenizer")  # imports are not what is watched
    watching = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 0o103  # write, read-write, create
        if watching and (writes or event.startswith(("socket.", "os.mkdir", "os.rename", "subprocess."))):
            AUDITED.append(f"{event} {arguments}")

    sys.addaudithook(watch)
    monkeypatch.chdir(tmp_path)
    for form in FORMS:
        folder = copy_form(DEMO / "tokenizer_2", tmp_path / form, form)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        watching = True
        canonical_tokenizer(folder)
        watching = False
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert AUDITED == []
    watching = True
    (tmp_path / "seen").write_text("")
    watching = False
    assert len(AUDITED) == 1, "the watch itself works"


def break_folder(folder: Path, how: str) -> None:
    vocabulary, config = folder / "vocab.json", folder / "tokenizer_config.json"
    match how.split():
        case ["no", name]:
            (folder / name).unlink()
        case ["cut", name]:
            (folder / name).write_bytes((folder / name).read_bytes()[:-20])
        case ["config", text]:
            config.write_text(json.dumps({**json.loads(config.read_text()), **json.loads(text)}))
        case ["vocabulary"]:
            words = json.loads(vocabulary.read_text())
            vocabulary.write_text(json.dumps({word: index for word, index in words.items() if "end" not in word}))
        case ["list"]:
            vocabulary.write_text("[]")


@pytest.mark.parametrize(
    ("form", "how", "got"),
    [
        ("vocab", "no vocab.json", "merges.txt"),
        ("vocab", "no merges.txt", "vocab.json"),
        ("vocab", "no tokenizer_config.json", "vocab.json"),
        ("vocab", "cut vocab.json", ""),
        ("vocab", "cut tokenizer_config.json", "JSONDecodeError"),
        ("vocab", "list", ""),
        ("vocab", "vocabulary", "'<|endoftext|>' is not in the vocabulary"),
        ("vocab", 'config {"eos_token":"<end>"}', "'<end>' is not in the vocabulary"),
        ("vocab", 'config {"pad_token":null}', "pad token None"),
        ("vocab", 'config {"padding_side":"left"}', "padding_side 'left'"),
        ("vocab", 'config {"split_special_tokens":true}', "split_special_tokens"),
        ("json", "no tokenizer.json", "tokenizer_config.json"),
        ("json", "no tokenizer_config.json", "tokenizer.json"),
        ("json", "cut tokenizer.json", "JSONDecodeError"),
    ],
)
def test_broken_folders_are_refused(tmp_path: Path, form: str, how: str, got: str) -> None:
    folder = copy_form(DEMO / "tokenizer", tmp_path / "broken", form)
    break_folder(folder, how)
    with pytest.raises(CheckpointError) as caught:
        canonical_tokenizer(folder)
    print(caught.value)
    assert str(folder) in caught.value.what
    assert got in caught.value.got
    assert caught.value.expected
    assert caught.value.fix


def test_no_folder_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, got in (("openai", "no such folder"), ("empty", "an empty folder")):
        with pytest.raises(CheckpointError) as caught:
            canonical_tokenizer(tmp_path / name)
        assert caught.value.got == got


def test_a_prompt_of_75_tokens_fits_and_an_empty_one_is_padding() -> None:
    full = encode(DEMO / "tokenizer_2", "x " * 75)[0]
    assert (full[0], full[-1], full.shape) == (602, 603, (TOKENS,))
    for empty in ("", " \n\t"):
        assert encode(DEMO / "tokenizer_2", empty).tolist() == [[602, 603] + [0] * 75]


@pytest.mark.parametrize("prompt", [None, 5, b"a cat", ["a cat"], "\ud800", "a \udc00 cat", "\ud83d\ude00"])
def test_what_is_no_text_is_refused(prompt: Any) -> None:
    with pytest.raises(UsageError) as caught:
        check_text(prompt)
    assert caught.value.got
    assert caught.value.expected
    assert caught.value.fix


def test_settings_in_the_file_for_truncation_and_padding_have_no_effect() -> None:
    made = canonical_tokenizer(DEMO / "tokenizer")
    document = json.loads(made.json)
    document["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    padding = {"strategy": {"Fixed": 20}, "direction": "Left", "pad_to_multiple_of": None}
    document["padding"] = {**padding, "pad_id": 7, "pad_type_id": 0, "pad_token": "x"}
    tokenizer = Tokenizer(json.dumps(document).encode(), spec_for(made))
    prompt = "a large red circle on a white background"
    assert tokenizer.tokens(prompt) == load(DEMO / "tokenizer").tokens(prompt)


@pytest.mark.parametrize(
    ("text", "changes", "got"),
    [
        (b"", {}, "EOF"),
        (b"{}", {}, "Model missing"),
        (b"\xff\xfe", {}, "expected value"),
        (b"[" * 10_000, {}, "sequence"),
        (b'{"version":"1.0","model":{"type":"BPE","vocab":{},"merges":[]}}', {}, "0 ids up to none"),
        (b'{"version":"1.0","normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"}}', {}, "charsmap"),
        (None, {"vocabulary": 603}, "604 ids up to 603"),
        (None, {"vocabulary": 900, "pad": 899}, "604 ids up to 603"),
        (None, {"bos": -1}, "604 ids up to 603"),
        (None, {"pool_at": "last"}, "pool_at 'last'"),
    ],
)
def test_damaged_tokenizers_are_refused(text: bytes | None, changes: dict[str, Any], got: str) -> None:
    made = canonical_tokenizer(DEMO / "tokenizer")
    with pytest.raises(BundleError, match="text_encoder") as caught:
        Tokenizer(made.json if text is None else text, spec_for(made, **changes))
    assert got in caught.value.got
    assert caught.value.expected
    assert caught.value.fix


@pytest.mark.parametrize(("eos", "pool_at"), [(2, "argmax"), (603, "eos"), (5, "eos")])
def test_the_pooled_position_is_transformers(eos: int, pool_at: str) -> None:
    """float32, generator seeded with 0; the position is found by which hidden state came out as the pooled one."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = CLIPTextModel(
        CLIPTextConfig(vocab_size=604, eos_token_id=eos, bos_token_id=602, pad_token_id=0, **sizes)
    ).eval()
    tokenizer = load(DEMO / "tokenizer", eos=603 if pool_at == "argmax" else eos, pool_at=pool_at)
    generator = np.random.default_rng(0)
    ids = generator.integers(0, 604, (200, TOKENS), dtype=np.int32)
    ids[np.arange(50), generator.integers(0, TOKENS, 50)] = 603
    ids[50:100, 10:14] = 603  # several end tokens: the first counts
    ids[100:150] = np.minimum(ids[100:150], 40)  # the largest id several times, and no end token but 5
    ids[150:, 20:] = 0
    ids[0] = encode(DEMO / "tokenizer", "a red circle <|endoftext|> on a white background")[0]
    with torch.inference_mode():
        out = model(torch.from_numpy(ids.astype(np.int64)))
    equal = (out.last_hidden_state == out.pooler_output[:, None]).all(-1)
    assert equal.sum(1).tolist() == [1] * 200, "positions make every hidden state different"
    expected = equal.int().argmax(1).tolist()
    assert len(set(expected)) > 10
    assert [tokenizer.pool_index(row) for row in ids] == expected
