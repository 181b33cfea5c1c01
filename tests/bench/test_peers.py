"""Peers: what they are told, and what is said where they cannot run."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from sdxl_trt.bench import peers
from sdxl_trt.bench.peers import Job, measure_peer
from sdxl_trt.paths import DEMO_CHECKPOINT

JOB = Job(
    checkpoint=str(DEMO_CHECKPOINT),
    device="cpu",
    compiled=False,
    prompt="a red circle",
    size=(64, 64),
    steps=1,
    guidance=5.0,
    batches=(1, 2),
    repeats=2,
    threads=1,
)


def test_diffusers_draws() -> None:
    figures = list(measure_peer("diffusers eager", JOB))
    assert {figure.batch for figure in figures} == {1, 2}
    pictures = [figure for figure in figures if figure.what == "whole picture"]
    assert [len(figure.samples) for figure in pictures] == [2, 2]
    assert all(min(figure.samples) > 0 for figure in figures)
    assert not any("GPU" in figure.what for figure in figures)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name == "diffusers" else object())
    figures = list(measure_peer("diffusers eager", JOB))
    assert [(figure.batch, figure.samples, figure.reason) for figure in figures] == [
        (1, (), "diffusers is not installed"),
        (2, (), "diffusers is not installed"),
    ]


def test_a_peer_that_fails_says_why(tmp_path: Path) -> None:
    shutil.copytree(DEMO_CHECKPOINT, tmp_path / "model")
    (tmp_path / "model" / "vae" / "config.json").write_text("{")
    figures = list(measure_peer("diffusers eager", dataclasses.replace(JOB, checkpoint=str(tmp_path / "model"))))
    print(figures[0].reason)
    assert len(figures) == 2
    assert all(figure.reason.startswith("it failed: ") and "Error" in figure.reason for figure in figures)
