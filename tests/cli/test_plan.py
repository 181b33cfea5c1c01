"""`sdxl-trt plan`: what it prints, where it takes a model from, and what it refuses."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models import Models

from sdxl_trt.bundle import Blob, EngineEntry, Manifest, Refiner, Target, read_manifest, write_manifest
from sdxl_trt.cli.models import export_folder
from sdxl_trt.paths import DEMO_CHECKPOINT
from sdxl_trt.planning import PUBLISHED, ModelCosts, of_export, published
from sdxl_trt.spec import Profile

Command = Callable[..., Any]
BASE, TURBO, REFINER = PUBLISHED


def test_plan_of_a_published_model(sdxl_trt: Command) -> None:
    outcome = sdxl_trt("plan", "--gpu", "rtx3060", "--json")
    assert outcome.status == 0, outcome
    plan = outcome.json
    assert plan["estimated"] is True
    assert (plan["models"], plan["size"], plan["policy"]) == (
        ["stable-diffusion-xl-base-1.0"],
        [1024, 1024],
        "resident",
    )
    assert [each["policy"] for each in plan["policies"]] == ["resident", "swap", "stream"]
    step = next(each for each in plan["components"] if each["name"] == "step")
    assert step["operations"] == pytest.approx(60 * 6.761e12, rel=1e-3)
    assert plan["peak"] <= plan["card"]["for_engines"] < plan["card"]["memory"] == 12 * 10**9
    assert plan["seconds"]["floor"] < plan["seconds"]["low"] < plan["seconds"]["high"]
    text = sdxl_trt("plan", "--gpu", "rtx3060").out
    assert "Everything is estimated" in text
    assert "resident  peak 9.60 GB, fits  ← this one" in text


def test_options_change_the_plan(sdxl_trt: Command) -> None:
    def plan(*options: object) -> Any:
        return sdxl_trt("plan", TURBO, "--gpu", "rtx3060", "--json", *options).json

    whole, half = plan(), plan("--no-guidance")
    assert whole["size"] == [512, 512]
    assert half["seconds"]["floor"] < whole["seconds"]["floor"]
    refined = plan("--refiner", REFINER)
    assert [each["name"] for each in refined["components"] if "refiner" in each["name"]] == ["refiner step"]
    assert (refined["policy"], plan("--memory-gb", 4)["policy"]) == ("swap", "stream")
    assert plan("--memory", "swap")["policy"] == "swap"


def test_the_report_is_written_beside_the_plan(sdxl_trt: Command, tmp_path: Path) -> None:
    outcome = sdxl_trt("plan", "--gpu", "rtx3060", "--no-guidance", "--steps", 1, "--report", "new/plan.html", "--json")
    assert (outcome.status, outcome.json["report"]) == (0, "new/plan.html")
    page = Path("new/plan.html").read_text(encoding="utf-8")
    assert f'value="{outcome.json["peak"]}"' in page
    for option, value in {
        "--guidance": "no",
        "--steps": "1",
        "--batch": "1 (default)",
        "--refiner": "not given",
    }.items():
        assert f"<dt>{option}</dt><dd>{value}</dd>" in page
    assert [path.name for path in Path("new").iterdir()] == ["plan.html"]
    assert sdxl_trt("plan", "--gpu", "rtx3060", "--report", "plan.html").out.endswith("\nplan.html\n")
    outcome = sdxl_trt("plan", "--gpu", "rtx3060", "--report", "plan.html/plan.html")
    assert (outcome.status, "cannot write" in outcome.err) == (1, True)


def test_what_a_gpu_cannot_do_is_said(sdxl_trt: Command) -> None:
    assert "! TensorRT for RTX builds no fp32 matrix product for SM 7.5" in sdxl_trt("plan", "--gpu", "rtx2080ti").out
    assert sdxl_trt("plan", "--gpu", "rtx3060", "--json").json["limits"] == []


def test_a_card_by_hand_has_no_times(sdxl_trt: Command) -> None:
    outcome = sdxl_trt("plan", "--memory-gb", 8, "--sm", 89)
    assert outcome.status == 0
    assert "8 GB, SM 89" in outcome.out
    assert "time: not known" in outcome.out
    assert sdxl_trt("plan", "--memory-gb", 8, "--sm", 89, "--json").json["seconds"] is None


def test_plan_of_a_checkpoint_counts_its_export(sdxl_trt: Command, models: Models) -> None:
    shutil.copytree(models.export("demo"), export_folder(DEMO_CHECKPOINT))
    outcome = sdxl_trt("plan", "demo", "--gpu", "rtx3060", "--json")
    assert outcome.status == 0, outcome
    plan = outcome.json
    assert plan["size"] == [128, 128]
    assert plan["policy"] == "resident"
    works = of_export(models.export("demo")).works
    assert {each["name"]: each["weights"] for each in plan["components"]} == {
        name: work.weights for name, work in works.items() if name != "unet"
    }


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The manifest of SDXL base with its refiner for SM 86; plans read no other file."""
    base, refiner = published(BASE), published(REFINER)
    target = Target(
        name="tensorrt-rtx-sm86",
        flavour="tensorrt-rtx",
        flavour_version="1.7",
        sms=(86,),
        processor="x86_64",
        precision="float16",
        profile=Profile.make(smallest=(512, 512), best=(1024, 1024), largest=(1536, 1536), batch=1),
        accepted=False,
        engines=_engines(base),
        refiner=_engines(refiner),
    )
    blob = Blob(sha256="b" * 64, bytes=1000)
    manifest = Manifest(
        tool="0",
        created="",
        model=base.model,
        files={"file": blob},
        targets=(target,),
        refiner=Refiner(model=refiner.model, files={"file": blob}),
    )
    write_manifest(tmp_path / "bundle", manifest)
    return tmp_path / "bundle"


def _engines(costs: ModelCosts) -> dict[str, EngineEntry]:
    file = Blob(sha256="a" * 64, bytes=10**6)
    return {
        name: EngineEntry(key="c" * 64, file=file, inputs=(), outputs=(), work=work)
        for name, work in costs.works.items()
    }


def test_plan_of_a_bundle(sdxl_trt: Command, bundle: Path) -> None:
    plan = sdxl_trt("plan", bundle, "--gpu", "rtx3060", "--refiner", bundle, "--json").json
    assert plan["building"] == {
        "disk": 6 * 10**6 + 2000,
        "seconds": None,
        "memory": None,
        "source": "the bundle: nothing is left to build",
    }
    direct = sdxl_trt("plan", BASE, "--gpu", "rtx3060", "--refiner", REFINER, "--json").json
    assert plan["peak"] == direct["peak"]
    assert plan["seconds"] == direct["seconds"]


def test_bundles_that_say_too_little(sdxl_trt: Command, bundle: Path) -> None:
    outcome = sdxl_trt("plan", bundle, "--gpu", "rtx4090")
    assert (outcome.status, "no engines for this GPU" in outcome.err) == (1, True)
    manifest = read_manifest(bundle)
    target = manifest.targets[0]
    engines = {name: dataclasses.replace(entry, work=None) for name, entry in target.engines.items()}
    bare = dataclasses.replace(target, engines=engines, refiner={})
    write_manifest(bundle, dataclasses.replace(manifest, targets=(bare,), refiner=None))
    outcome = sdxl_trt("plan", bundle, "--gpu", "rtx3060")
    assert (outcome.status, "does not say what its engines take" in outcome.err) == (1, True)
    outcome = sdxl_trt("plan", BASE, "--gpu", "rtx3060", "--refiner", bundle)
    assert (outcome.status, "holds no refiner" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--gpu", "rtx3061"], 2, ["unknown GPU", "rtx3060"]),
        ([], 2, ["a plan needs a GPU", "--memory-gb"]),
        (["--gpu", "cpu"], 2, ["a plan needs a GPU"]),
        (["--gpu", "rtx3060", "--sm", 86], 2, ["a plan needs a GPU"]),
        (["--memory-gb", 8], 2, ["a plan needs a GPU"]),
        (["--memory-gb", 8, "--sm", 61], 2, ["unknown compute capability", "86"]),
        (["--gpu", "rtx3060", "--memory-gb", 2], 1, ["no plan for this memory", "at least 3.60 GB", "vae_decoder"]),
        (["--gpu", "rtx3060", "--memory-gb", 8, "--memory", "resident"], 1, ["with resident", "another --memory"]),
        (["--gpu", "rtx3060", "--size", "1000x1001"], 2, ["not a multiple of 8"]),
        (["--gpu", "rtx3060", "--size", "0x512"], 2, ["not a multiple of 8"]),
        (["--gpu", "rtx3060", "--size", "99992x99992"], 1, ["no plan for this memory"]),
        (["--gpu", "rtx3060", "--steps", 0], 2, ["steps"]),
        (["--gpu", "rtx3060", "--refiner", BASE], 2, ["is no refiner"]),
        (["--gpu", "rtx3060", "--refiner", "nowhere"], 1, ["nowhere"]),
        (["--gpu", "rtx3060", "--refiner", "some/model"], 2, ["plans fetch nothing", BASE]),
        (["nowhere", "--gpu", "rtx3060"], 1, ["nowhere"]),
    ],
)
def test_what_cannot_be_planned(sdxl_trt: Command, arguments: list[object], status: int, says: list[str]) -> None:
    outcome = sdxl_trt("plan", *arguments)
    assert outcome.status == status, outcome
    assert not outcome.out
    for part in says:
        assert part in outcome.err
