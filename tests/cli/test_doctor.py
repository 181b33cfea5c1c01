"""`sdxl-trt doctor`: what it finds on a recorded GPU, in bundles and in libraries, and what it advises."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import tensorrt_rtx
import torch  # noqa: F401  before its own import of CUDA would meet the recording
from manifests import C, make_manifest, make_target, put_placeholders
from recording_driver import RecordingDriver

from sdxl_trt.bundle import Target, write_manifest
from sdxl_trt.cli.doctor import machine
from sdxl_trt.paths import bundles_folder

Command = Callable[..., Any]
CODES = RecordingDriver.CUresult
RTX = make_target("rtx", flavour="tensorrt-rtx", flavour_version=tensorrt_rtx.__version__, sms=(89,), accepted=False)
CPU = make_target("cpu", flavour_version=onnxruntime.__version__)


def use_driver(monkeypatch: pytest.MonkeyPatch, driver: Any) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", driver)


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this host has."""
    use_driver(monkeypatch, None)
    monkeypatch.setattr(machine, "KERNEL_MODULE", Path("none"))


def add_bundle(name: str, *targets: Target) -> str:
    write_manifest(bundles_folder() / name, make_manifest(*targets))
    put_placeholders(bundles_folder() / name, *targets)
    return str(bundles_folder() / name)


def fixes(report: Any) -> list[str]:
    assert all(problem["what"] and problem["fix"] for problem in report["problems"])
    return [problem["fix"] for problem in report["problems"]]


def test_gpus_are_described(sdxl_trt: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = RecordingDriver(name="NVIDIA GeForce RTX 4090", memory=24 * 10**9, gpus=2)
    use_driver(monkeypatch, driver)
    report = sdxl_trt("doctor", "--json").json
    assert report["driver"] == {"version": None, "cuda": "13.0", "error": None}
    first, second = report["gpus"]
    assert (first["device"], second["device"]) == ("cuda:0", "cuda:1")
    assert (first["name"], first["sm"], first["key"], first["pci"]) == (driver.name, 89, "rtx4090", "0000:01:00.0")
    assert first["free"] == first["total"] == 24 * 10**9
    assert first["flavours"] == {"tensorrt-rtx": tensorrt_rtx.__version__}
    assert report["libraries"]["tensorrt-rtx"]["runs_on"] == ["cuda:0", "cuda:1"]
    assert report["problems"] == []
    assert (driver.contexts, driver.live) == (0, {}), "nothing is kept on the GPUs"
    line = "cuda:1  NVIDIA GeForce RTX 4090, SM 89, --gpu rtx4090: 24.0 of 24.0 GB free, runs tensorrt-rtx 1."
    assert line in sdxl_trt("doctor").out


def test_gpus_that_are_not_in_the_catalogue(sdxl_trt: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    use_driver(monkeypatch, RecordingDriver())
    outcome = sdxl_trt("doctor", "--json")
    assert outcome.json["gpus"][0]["key"] is None
    assert fixes(outcome.json) == ["build for one of the same compute capability: --gpu rtx4060"]
    assert "SM 89, not in the catalogue" in sdxl_trt("doctor").out


def test_gpus_that_cannot_be_used(sdxl_trt: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = RecordingDriver()
    driver.fail["cuDevicePrimaryCtxRetain"] = CODES.CUDA_ERROR_DEVICE_UNAVAILABLE
    use_driver(monkeypatch, driver)
    outcome = sdxl_trt("doctor", "--json")
    assert outcome.json["gpus"][0]["error"]["what"] == "cannot use GPU 0"
    assert "nvidia-smi -c DEFAULT" in fixes(outcome.json)[0]
    assert "cuda:0  cannot use GPU 0" in sdxl_trt("doctor").out


@pytest.mark.parametrize(
    ("driver", "fix"), [(RecordingDriver(version=12040), "driver 580 or later"), (None, "sdxl-trt[tensorrt]")]
)
def test_a_driver_that_cannot_be_used(
    sdxl_trt: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, driver: Any, fix: str
) -> None:
    """It is a problem where there is a GPU to be had, which the kernel's module tells."""
    use_driver(monkeypatch, driver)
    assert sdxl_trt("doctor", "--json").json["problems"] == []
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build\nGCC\n")
    monkeypatch.setattr(machine, "KERNEL_MODULE", version)
    report = sdxl_trt("doctor", "--json").json
    assert (report["driver"]["version"], report["driver"]["cuda"]) == ("550.54.14", None)
    assert fix in fixes(report)[0]


def test_each_bundle_on_each_device(sdxl_trt: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    use_driver(monkeypatch, RecordingDriver(name="NVIDIA GeForce RTX 4090"))
    other = dataclasses.replace(RTX, name="other", sms=(86,))
    path = add_bundle("mixed", CPU, RTX, other)
    outcome = sdxl_trt("doctor", "--json")
    (bundle,) = outcome.json["bundles"]
    assert (bundle["path"], bundle["model"], bundle["error"]) == (path, "small", None)
    cpu, gpu = bundle["devices"]["cpu"], bundle["devices"]["cuda:0"]
    assert (cpu["target"], cpu["accepted"], set(cpu["refused"])) == ("cpu", True, {"rtx", "other"})
    assert (gpu["target"], gpu["accepted"], set(gpu["refused"])) == ("rtx", False, {"cpu", "other"})
    assert gpu["refused"]["other"] == "built for SM 86, this host has SM 89"
    assert outcome.json["picture"] == {"bundle": path, "device": "cuda:0", "target": "rtx"}
    assert outcome.status == 0
    text = sdxl_trt("doctor").out
    assert "cuda:0: rtx runs, built: never run yet" in text
    assert f"--bundle {path} --device cuda:0" in text


def test_bundles_that_need_more_memory_than_is_free(sdxl_trt: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two engines of 4 GB: both at once, one at a time, none."""
    (entry,) = RTX.engines.values()
    assert entry.work
    heavy = dataclasses.replace(entry, work=dataclasses.replace(entry.work, weights=4 * 10**9))
    path = add_bundle("heavy", dataclasses.replace(RTX, engines={"step": heavy, "vae_decoder": heavy}))
    for free, policy in ((9, "resident"), (5, "swap"), (4, None)):
        use_driver(monkeypatch, RecordingDriver(name="NVIDIA GeForce RTX 4090", memory=free * 10**9))
        outcome = sdxl_trt("doctor", "--json")
        use = outcome.json["bundles"][0]["devices"]["cuda:0"]
        text = sdxl_trt("doctor").out
        if policy:
            assert use["memory"].startswith(f"{policy} (fits; ")
            assert outcome.json["picture"]["bundle"] == path
            assert f"rtx runs, built: never run yet; memory: {policy} (fits" in text
        else:
            assert (use["target"], outcome.json["picture"]["bundle"]) == (None, "demo")
            assert "3.46 GB for engines, beside 0.54 GB" in use["refused"]["rtx"]
            assert "at least 4.54 GB, with the policy swap" in use["refused"]["rtx"]
            assert use["refused"]["rtx"] in text


def test_targets_that_were_not_pulled(sdxl_trt: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    use_driver(monkeypatch, RecordingDriver(name="NVIDIA GeForce RTX 4090"))
    plan = dataclasses.replace(RTX.engines["vae_decoder"], file=C, weights=())
    path = Path(add_bundle("pulled", CPU))
    write_manifest(path, make_manifest(CPU, dataclasses.replace(RTX, engines={"vae_decoder": plan})))
    (bundle,) = sdxl_trt("doctor", "--json").json["bundles"]
    assert bundle["devices"]["cpu"]["target"] == "cpu"
    gpu = bundle["devices"]["cuda:0"]
    assert gpu["target"] is None
    assert gpu["refused"]["rtx"] == "not pulled: 1 of its 1 files are not here (3 bytes)"
    assert gpu["fix"].startswith(f"sdxl-trt ship pull REF -o {path}")
    assert "rtx: not pulled" in sdxl_trt("doctor").out


def test_no_picture_is_status_1_with_what_helps(sdxl_trt: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    path = add_bundle("rtx", RTX)
    assert sdxl_trt("doctor").status == 0, "the demo model can be built for the processor"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    outcome = sdxl_trt("doctor", "--json")
    assert (outcome.status, outcome.json["picture"]) == (1, None)
    assert outcome.json["libraries"]["onnxruntime"]["state"] == "missing"
    advice = fixes(outcome.json)
    assert "--device cuda" in advice[0]
    assert advice[-1] == "pip install 'sdxl-trt[cpu]'"
    text = sdxl_trt("doctor").out
    assert f"nothing in {path} runs on cpu" in text
    assert "picture: none can be made here" in text


def test_damaged_bundles_do_not_hide_others(sdxl_trt: Command) -> None:
    path = add_bundle("whole", CPU)
    broken = bundles_folder() / "broken"
    broken.mkdir()
    (broken / "bundle.json").write_text("{")
    outcome = sdxl_trt("doctor", "--json")
    assert outcome.status == 0
    assert outcome.json["picture"]["bundle"] == path
    assert fixes(outcome.json) == ["fetch or build the bundle again"]
    assert "is damaged or was altered" in sdxl_trt("doctor").out


def test_libraries_that_are_broken_or_old(sdxl_trt: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("import ctypes\nctypes.CDLL('libnvinfer.so.none')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setattr(tensorrt_rtx, "__version__", "1.6.9.9")
    report = sdxl_trt("doctor", "--json").json
    states = {name: library["state"] for name, library in report["libraries"].items()}
    assert states["tensorrt"] == states["tensorrt-rtx"] == "broken"
    assert "libnvinfer.so.none" in report["libraries"]["tensorrt"]["error"]["got"]
    assert fixes(report) == ["pip install 'sdxl-trt[tensorrt]'", "pip install --upgrade 'sdxl-trt[tensorrt-rtx]'"]


def test_what_exports_may_be_broken_in_any_way(
    sdxl_trt: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "onnx_ir.py").write_text("raise AttributeError('half of it is gone')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("onnx_ir", "sdxl_trt.export.run"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    outcome = sdxl_trt("doctor", "--json")
    assert outcome.json["export"]["error"]["got"] == "half of it is gone"
    assert (outcome.status, fixes(outcome.json)) == (1, ["pip install 'sdxl-trt[export]'"])


def test_two_onnxruntimes_are_a_problem(sdxl_trt: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = tmp_path / "site" / f"{name}-1.31.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Name: {name.replace('_', '-')}\nVersion: 1.31.0\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert any(importlib.metadata.distributions(name="onnxruntime-gpu"))
    assert "pip uninstall onnxruntime onnxruntime-gpu" in fixes(sdxl_trt("doctor", "--json").json)[0]


def test_memory_and_disk(sdxl_trt: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = sdxl_trt("doctor", "--json").json
    assert 0 < report["memory"]["available"] <= report["memory"]["total"]
    assert report["disk"]["bundles"]["path"] == str(bundles_folder())
    assert report["disk"]["exports"]["free"] > 0
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    outcome = sdxl_trt("doctor", "--json")
    assert "another place" in fixes(outcome.json)[0]
    assert outcome.status == 1, "there is no place for the demo model's bundle"
