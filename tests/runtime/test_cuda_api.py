"""Every call and name of the CUDA driver that the runtime uses exists in cuda-python, with those arguments.

Needs no driver. That the calls do what they should on a GPU is not shown here.
"""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cuda.bindings import driver
from recording_driver import RecordingDriver

import sdxl_trt.runtime.cuda
from sdxl_trt.errors import FlavourUnavailable
from sdxl_trt.runtime.cuda import CudaDevice

SOURCES = sorted(Path(sdxl_trt.runtime.cuda.__file__).parent.glob("*.py"))


def uses() -> tuple[set[str], set[tuple[str, int]], set[str]]:
    """Attributes of the driver's module; its functions with the number of arguments; names inside enumerations."""
    names, calls, members = set(), set(), set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_ours(node.func.attr):
                assert not node.keywords, ast.unparse(node)
                calls.add((node.func.attr, len(node.args)))
            if isinstance(node, ast.Attribute) and is_ours(node.attr):
                names.add(node.attr)
            if isinstance(node, ast.Attribute) and node.attr.startswith(("CU_", "CUDA_")):
                members.add(f"{ast.unparse(node.value).rpartition('.')[2]}.{node.attr}")
            if isinstance(node, ast.Constant) and str(node.value).startswith("CUDA_ERROR_"):
                members.add(f"CUresult.{node.value}")
    return names, calls, members


def is_ours(name: str) -> bool:
    """Of the driver's module: a function, or an enumeration."""
    return (name[:2] == "cu" and name[2:3].isupper()) or (name[:2] == "CU" and name[2:3].islower())


def test_enough_is_found() -> None:
    names, calls, members = uses()
    print(f"{len(names)} names, {len(calls)} calls, {len(members)} members")
    assert {name for name, _ in calls} <= names
    assert {"cuMemFree", "cuGraphLaunch", "CUresult"} <= names
    assert "CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL" in {m.replace("cu.", "") for m in members}


@pytest.mark.parametrize("name", sorted(uses()[0]))
def test_the_name_is_there(name: str) -> None:
    assert hasattr(driver, name)
    assert hasattr(RecordingDriver, name)


@pytest.mark.parametrize(("name", "arguments"), sorted(uses()[1]))
def test_the_call_takes_these_arguments(name: str, arguments: int) -> None:
    for module in (driver, RecordingDriver()):
        inspect.signature(getattr(module, name)).bind(*range(arguments))


@pytest.mark.parametrize("name", sorted(uses()[2]))
def test_the_member_is_there(name: str) -> None:
    enumeration, _, member = name.rpartition(".")
    kinds = (driver.CUstream_flags, driver.CUevent_flags, driver.CUstreamCaptureMode, driver.CUdevice_attribute)
    homes = [getattr(driver, enumeration)] if hasattr(driver, enumeration) else [driver.CUresult, *kinds]
    assert any(hasattr(home, member) for home in homes)


def has_driver() -> bool:
    try:
        driver.cuInit(0)
    except RuntimeError:
        return False
    return True


@pytest.mark.skipif(has_driver(), reason="this host has NVIDIA's driver, which would get these calls")
def test_handles_are_plain_integers_to_the_bindings() -> None:
    """Arguments are converted before the driver is looked for: where one would not do, this ends in a TypeError."""
    program = f"""
import json
from cuda.bindings import driver
wrong = {{}}
for name, count in {sorted(uses()[1])!r}:
    arguments = [3] * count
    if name == "cuStreamBeginCapture": arguments[1] = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    if name == "cuDeviceGetAttribute":
        arguments[0] = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
    if name == "cuGetErrorString": arguments[0] = driver.CUresult.CUDA_ERROR_UNKNOWN
    try:
        getattr(driver, name)(*arguments)
    except RuntimeError as error:
        pass  # no driver
    except Exception as error:
        wrong[name] = repr(error)
print(json.dumps(wrong))
"""
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120)
    assert json.loads(out.stdout) == {}


@pytest.mark.skipif(has_driver(), reason="this host has NVIDIA's driver")
def test_without_a_driver_the_error_says_so() -> None:
    """As cuda-python raises it on a host like this one."""
    with pytest.raises(FlavourUnavailable, match="no NVIDIA driver") as caught:
        CudaDevice()
    assert "580" in caught.value.fix


def test_without_cuda_python_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(FlavourUnavailable, match=r"cuda\.bindings\.driver cannot be imported"):
        CudaDevice()
