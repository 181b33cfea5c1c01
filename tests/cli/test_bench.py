"""`sdxl-trt bench` from end to end, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdxl_trt.bench import peers

Command = Callable[..., Any]
QUICK = ("--steps", 2, "--batch", "1,2", "--repeats", 2, "--size", "64x64", "--threads", 1)


def test_a_bundle_beside_diffusers(sdxl_trt: Command, demo_bundle: Path) -> None:
    outcome = sdxl_trt("bench", demo_bundle, *QUICK, "-o", "out", "--json")
    assert outcome.status == 0, outcome
    told = outcome.json
    assert told["files"] == ["out/bench.json", "out/bench.md"]
    written = json.loads(Path("out/bench.json").read_text())
    assert written["figures"] == told["figures"]
    settings = told["settings"]
    assert (settings["model"], settings["size"], settings["steps"], settings["repeats"]) == (
        "sdxl-shapes",
        "64x64",
        2,
        2,
    )
    assert settings["target"].startswith("onnxruntime-")
    assert settings["sampler"] == "EulerDiscreteScheduler"
    measured = {(row["who"], row["batch"]) for row in told["figures"] if row["samples"]}
    assert measured == {(who, batch) for who in ("sdxl-trt", "diffusers eager") for batch in (1, 2)}
    compiled = [row for row in told["figures"] if row["who"] == "diffusers torch.compile"]
    assert all("--compile" in row["reason"] for row in compiled)
    assert "processor" in told["roofline"]["reason"]
    assert "diffusers eager" in outcome.err


def test_the_table_on_the_terminal(sdxl_trt: Command, demo_bundle: Path) -> None:
    outcome = sdxl_trt("bench", demo_bundle, *QUICK, "--no-peer")
    assert outcome.status == 0, outcome
    for word in ("sdxl-shapes on", "whole picture", "host per step", "p99", "vae_decoder", "NVML", "of the CPUs"):
        assert word in outcome.out
    assert "diffusers" not in outcome.out
    assert outcome.out.endswith("sdxl-trt-bench/bench.json\nsdxl-trt-bench/bench.md\n")


def test_without_diffusers_the_report_says_so(
    sdxl_trt: Command, demo_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    outcome = sdxl_trt("bench", demo_bundle, *QUICK)
    assert "not measured: diffusers eager, whole picture: diffusers is not installed" in outcome.out


def test_a_peer_needs_a_checkpoint(sdxl_trt: Command, demo_bundle: Path, tmp_path: Path) -> None:
    """A bundle does not say where it came from."""
    bundle = Path(shutil.copytree(demo_bundle, tmp_path / "bundle"))
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["model"]["name"] = "another"
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    outcome = sdxl_trt("bench", bundle, *QUICK)
    assert "nothing says which checkpoint" in outcome.out


REFUSED = [
    (("--batch", "1,8"), 2, ("not built for this batch", "--batch 8", "up to 4")),
    (("--batch", "1;2"), 2, ("as 1,2,4",)),
    (("--batch", "1,0"), 2, ("one picture is the least",)),
    (("--repeats", "0"), 2, ("--repeats",)),
    (("--steps", "0"), 2, ("steps",)),
    (("--size", "2048x2048"), 2, ("not built for this size", "256x256")),
    (("--size", "65x64"), 2, ("multiple of 8",)),
    (("--guidance", "nan"), 2, ("guidance",)),
    (("--peer", "nowhere"), 2, ("diffusers cannot load nowhere", "no such folder")),
    (("--peer", "demo", "--no-peer"), 2, ("not both",)),
    (("--device", "gpu"), 2, ("this device cannot be used",)),
    (("-o", "/dev/null/out"), 1, ("cannot write",)),
]


@pytest.mark.parametrize(("arguments", "status", "parts"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused(
    sdxl_trt: Command, demo_bundle: Path, arguments: tuple[str, ...], status: int, parts: tuple[str, ...]
) -> None:
    outcome = sdxl_trt("bench", demo_bundle, *QUICK, *arguments)  # the last of an option counts
    assert outcome.status == status, outcome
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    for part in parts:
        assert part in outcome.err, outcome.err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("bundle", ["nowhere", "for another processor"])
def test_a_bundle_that_cannot_run_here(sdxl_trt: Command, demo_bundle: Path, tmp_path: Path, bundle: str) -> None:
    if bundle != "nowhere":
        shutil.copytree(demo_bundle, bundle)
        manifest = json.loads(Path(bundle, "bundle.json").read_text())
        manifest["targets"][0]["processor"] = "s390x"
        Path(bundle, "bundle.json").write_text(json.dumps(manifest))
    outcome = sdxl_trt("bench", bundle, *QUICK)
    assert outcome.status == 1
    assert ("is not a bundle" if bundle == "nowhere" else "s390x") in outcome.err
    assert outcome.err.count("error:") == 1
    assert not Path("sdxl-trt-bench").exists()
