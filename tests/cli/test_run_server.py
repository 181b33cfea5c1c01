"""`sdxl-trt run --server`: the same options make the same files as on this host, or are refused by name."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from running import Running
from served import wait_until
from serving import serving

from sdxl_trt.cli import remote
from sdxl_trt.cli.remote import KEY_VARIABLE
from sdxl_trt.cli.run import run_command
from sdxl_trt.client.settings import EditSettings
from sdxl_trt.runtime.serve.http.keys import new_key

Command = Callable[..., Any]
PROMPT = "a (large:1.2) red circle on a white background"


@pytest.fixture(scope="module")
def server(demo_bundle: Path) -> Iterator[Running]:
    with serving(demo_bundle) as one:
        yield one


@pytest.fixture
def run(sdxl_trt: Command, server: Running, demo_bundle: Path) -> Command:
    """Pictures of the server's, and of this host's with the same options: `run(there, name, …)`."""

    def called(there: bool, name: str, *options: object) -> Any:
        where = ("--server", server.base_url) if there else ("--bundle", demo_bundle)
        return sdxl_trt("run", PROMPT, *where, "-o", name, "--steps", 4, "--seed", 7, *options)

    return called


def pixels(name: str) -> Any:
    return np.asarray(Image.open(name).convert("RGB"), int)


def assert_the_same(sdxl_trt: Command, there: str, here: str) -> None:
    assert np.abs(pixels(there) - pixels(here)).max() <= 1
    told, expected = (sdxl_trt("inspect", name, "--json").json for name in (there, here))
    assert told["settings"] == expected["settings"]
    assert (told["prompt"], told["negative_prompt"]) == (expected["prompt"], expected["negative_prompt"])


ALL = (
    *("--negative-prompt", "", "--prompt-2", "a (blue) star", "--negative-prompt-2", "grey", "--clip-skip", 1),
    *("--size", "96x64", "--guidance", 4, "--guidance-end", 0.7, "--guidance-rescale", 0.3, "--rng", "cuda"),
    *("--sampler", "DPM++ 2M", "--sigmas", "karras", "--solver-order", 2, "--original-size", "64x64"),
    *("--target-size", "96x64", "--crop-top-left", "8,0", "--negative-original-size", "96x96"),
    *("--negative-target-size", "96x96", "--negative-crop-top-left", "0,8", "--vae-tiling", "on", "--vae-tile", 64),
)


@pytest.mark.parametrize(
    "options", [(), ALL, ("--weighting", "off"), ("--spacing", "leading", "--eta", 0.5, "--sampler", "DDIM")]
)
def test_options_mean_what_they_mean_here(run: Command, sdxl_trt: Command, options: tuple[object, ...]) -> None:
    for there, name in ((True, "there.png"), (False, "here.png")):
        outcome = run(there, name, *options)
        assert outcome.status == 0, outcome
    assert_the_same(sdxl_trt, "there.png", "here.png")


def test_pictures_and_masks(run: Command, sdxl_trt: Command) -> None:
    Image.new("RGB", (64, 64), (30, 84, 240)).save("in.png")
    drawn = Image.new("L", (64, 64))
    ImageDraw.Draw(drawn).rectangle((16, 16, 47, 47), fill=255)
    drawn.save("mask.png")
    masked = ("--mask", "mask.png", "--mask-blur", 0.5, "--mask-invert", "--only-masked", 8, "--mask-soft")
    for options in ((), masked):
        for there, name in ((True, "there.png"), (False, "here.png")):
            outcome = run(there, name, "--image", "in.png", "--strength", 0.8, "--size", "64x64", *options)
            assert outcome.status == 0, outcome
        assert_the_same(sdxl_trt, "there.png", "here.png")


def test_the_report_has_the_same_keys(run: Command, server: Running) -> None:
    here, there = run(False, "here.png", "--json").json, run(True, "there.png", "-n", 2, "--json").json
    assert set(here) <= set(there)
    assert there["files"] == ["there-7.png", "there-8.png"]
    assert there["seeds"] == [7, 8]
    assert there["target"] == here["target"]
    assert set(there["seconds"]) == set(here["seconds"])
    assert there["server"] == server.base_url
    assert sorted(path.name for path in Path().glob("*.png")) == ["here.png", "there-7.png", "there-8.png"]


def test_people_are_told_where_it_was_made(sdxl_trt: Command, server: Running) -> None:
    outcome = sdxl_trt("run", "", "--server", server.base_url, "--steps", 1, "--seed", 5, "--seed", 3)
    assert outcome.status == 0, outcome
    assert outcome.out == "sdxl-0001-5.png  seed 5\nsdxl-0001-3.png  seed 3\n"
    assert outcome.err.startswith(f"{server.base_url} (onnxruntime-x86_64), request ")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--device", "cpu"), "--device"),
        (("--devices", "cpu,cpu", "--threads", 1), "--devices, --threads"),
        (("--memory", "auto"), "--memory"),
        (("--bundle", "bundle"), "--bundle"),
        (("--embedding", "toy=toy.safetensors"), "--embedding"),
        (("--preview-every", 2), "--preview-every"),
        (("--key", "none.pem"), "--key"),
    ],
)
def test_what_a_server_is_not_told_is_refused_by_name(
    sdxl_trt: Command, options: tuple[object, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = sdxl_trt("run", "", "--server", "http://127.0.0.1:9", *options)
    assert outcome.status == 2
    assert f"{told} cannot be used with --server" in outcome.err.replace("\n", " ")


def test_every_option_is_sent_or_refused() -> None:
    refused = {"bundle", "embedding", "preview_every", "device", "devices", "threads", "memory", "key"}
    options = {each.name for each in run_command.params}
    assert options - set(remote._OWN) - set(EditSettings.__annotations__) == refused


@pytest.mark.parametrize("option", [("--mask", "m.png"), ("--mask-blur", 1), ("--only-masked", 8), ("--mask-soft",)])
def test_what_needs_a_picture(sdxl_trt: Command, option: tuple[object, ...]) -> None:
    outcome = sdxl_trt("run", "", "--server", "http://127.0.0.1:9", *option)
    assert (outcome.status, f"{option[0]} needs --image" in outcome.err) == (2, True)


@pytest.mark.parametrize("options", [("--api-key-file", "key"), ("--plain-http",)])
def test_what_needs_a_server(sdxl_trt: Command, options: tuple[str, ...]) -> None:
    outcome = sdxl_trt("run", "", *options)
    assert (outcome.status, f"{options[0]} needs --server" in outcome.err) == (2, True)


def test_what_the_server_refuses(run: Command) -> None:
    outcome = run(True, "out.png", "--size", "8x8", "--json")
    assert outcome.status == 2
    assert outcome.json["error"] == "Refused"
    assert "8x8" in str(outcome.json)
    assert run(True, "out.png", "--strength", 0.5).status == 2
    assert list(Path().glob("*")) == []


def test_nobody_there(sdxl_trt: Command) -> None:
    outcome = sdxl_trt("run", "", "--server", "http://127.0.0.1:9")
    assert outcome.status == 1
    assert "cannot be reached" in outcome.err
    assert list(Path().glob("*")) == []


def test_places_are_checked_before_the_server_is_asked(sdxl_trt: Command) -> None:
    assert "a .png file" in sdxl_trt("run", "", "--server", "http://127.0.0.1:9", "-o", "out.jpg").err


def test_keys(sdxl_trt: Command, demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tmp_path / "keys"
    key = new_key(keys, "alice")
    (tmp_path / "key").write_text(f"{key}\n")
    with serving(demo_bundle, keys=keys) as server:
        call = ("run", "", "--server", server.base_url, "--steps", 1, "-o", "out.png")
        outcome = sdxl_trt(*call)
        assert (outcome.status, "API key is needed" in outcome.err) == (2, True)
        assert sdxl_trt(*call, "--api-key-file", tmp_path / "key").status == 0
        monkeypatch.setenv(KEY_VARIABLE, key)
        assert sdxl_trt(*call).status == 0
        monkeypatch.setenv(KEY_VARIABLE, "wrong")
        outcome = sdxl_trt(*call)
        assert (outcome.status, "API key is not right" in outcome.err) == (2, True)
        assert "wrong" not in outcome.err


@pytest.mark.parametrize("content", [None, b"", b"two words", b"\xff"])
def test_key_files_that_cannot_be_used(sdxl_trt: Command, content: bytes | None) -> None:
    if content is not None:
        Path("key").write_bytes(content)
    outcome = sdxl_trt("run", "", "--server", "http://127.0.0.1:9", "--api-key-file", "key")
    assert outcome.status == 2
    assert "API key" in outcome.err


def test_a_key_does_not_go_to_another_machine_unencrypted(sdxl_trt: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    outcome = sdxl_trt("run", "", "--server", "http://192.0.2.1")
    assert (outcome.status, "unencrypted" in outcome.err, "secret" in outcome.err) == (2, True, False)


def test_ctrl_c_takes_the_request_back(server: Running, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sdxl_trt", "run", "a star", "--server", server.base_url, "-o", "out.png"]
    process = subprocess.Popen([*command, "--steps", "900"], cwd=tmp_path, stderr=-1)
    wait_until(lambda: bool(server.context.jobs))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    server.wait_until_idle()
    assert list(tmp_path.iterdir()) == []


def test_help_says_it(sdxl_trt: Command) -> None:
    text = " ".join(sdxl_trt("run", "--help").out.split())
    assert "--server URL" in text
    assert f"[default: the variable {KEY_VARIABLE}]" in text
