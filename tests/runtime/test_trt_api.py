"""Every name of TensorRT that the runtime uses exists in TensorRT for RTX, and in TensorRT 11's run-time half.

Sources are read for attributes of variables by the names that the code gives them. Needs no GPU.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import recording_tensorrt
import tensorrt_rtx
from recording_tensorrt import make_plan

import sdxl_trt.runtime.trt
from sdxl_trt.bundle import BlobStore
from sdxl_trt.bundle.checked import CheckedBlob
from sdxl_trt.errors import BundleError
from sdxl_trt.libraries import error_log
from sdxl_trt.runtime.trt import rtx
from sdxl_trt.runtime.trt.reader import seek, stream_reader

FOLDER = Path(sdxl_trt.runtime.trt.__file__).parent
CLASSES = {
    "runtime": "Runtime",
    "cuda_engine": "ICudaEngine",
    "context": "IExecutionContext",
    "config": "IRuntimeConfig",
    "cache": "IRuntimeCache",
}
"""By the name of a variable, or of an attribute."""


def uses(*sources: str) -> set[str]:
    """What is used: 'Class.attribute', or 'NAME' and 'NAME.MEMBER' of the module itself."""
    found = set()
    for source in sources:
        for node in ast.walk(ast.parse((FOLDER / source).read_text())):
            if isinstance(node, ast.Attribute):
                owner, _, name = ast.unparse(node).rpartition(".")
                last = owner.split(".")[-1]
                if last in CLASSES:
                    found.add(f"{CLASSES[last]}.{name}")
                if owner == "trt" or owner.startswith("trt."):
                    found.add(f"{owner}.{name}".removeprefix("trt."))
    return found


SHARED = sorted(uses("engine.py", "binding.py", "reader.py", "streaming.py"))
ALONE = sorted(uses("rtx.py", "parking.py"))


def has(module: ModuleType, name: str) -> bool:
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True


def tensorrt_11() -> ModuleType:
    """The whole library where it is installed, or the half that is its run time."""
    for name in ("tensorrt", "tensorrt_lean"):
        try:
            return importlib.import_module(name)
        except ImportError:
            pass
    pytest.skip("neither tensorrt nor tensorrt-lean (pip install tensorrt-lean-cu13) is installed")


def test_enough_is_found() -> None:
    print(SHARED, ALONE)
    assert {"Runtime.deserialize_cuda_engine", "IExecutionContext.execute_async_v3", "IStreamReaderV2"} <= set(SHARED)
    assert {"IExecutionContext.is_stream_capturable", "IRuntimeCache.serialize"} <= set(ALONE)
    assert len(SHARED) > 20


@pytest.mark.parametrize("name", [*SHARED, *ALONE])
def test_tensorrt_for_rtx_has_it(name: str) -> None:
    assert has(tensorrt_rtx, name)


@pytest.mark.parametrize("name", SHARED)
def test_tensorrt_has_it(name: str) -> None:
    assert has(tensorrt_11(), name)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("Runtime", "Runtime"),
        ("CudaEngine", "ICudaEngine"),
        ("ExecutionContext", "IExecutionContext"),
        ("RuntimeConfig", "IRuntimeConfig"),
        ("RuntimeCache", "IRuntimeCache"),
    ],
)
def test_the_recorder_has_no_method_of_its_own(ours: str, theirs: str) -> None:
    methods = {name for name in vars(getattr(recording_tensorrt, ours)) if not name.startswith("_")}
    assert methods
    assert {name for name in methods if not hasattr(getattr(tensorrt_rtx, theirs), name)} == set()


def test_the_readers_methods_are_those_that_the_library_calls() -> None:
    """The class itself cannot be made here: its constructor looks for the driver."""
    stand_in = type("Module", (), {"IStreamReaderV2": object})
    reader = type(stream_reader(stand_in, None))  # type: ignore[arg-type]
    methods = {name for name in vars(reader) if not name.startswith("_")}
    assert methods == {"read", "seek"}
    assert methods <= set(dir(tensorrt_rtx.IStreamReaderV2))


def test_seeking(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    with store.lock():
        blob = store.put_bytes(bytes(range(100)))
    where = tensorrt_rtx.SeekPosition
    with CheckedBlob(store, blob, "the plan") as plan:
        for offset, origin, position in (
            (10, where.SET, 10),
            (5, where.CUR, 15),
            (-15, where.CUR, 0),
            (7, where.END, 93),
        ):
            assert seek(tensorrt_rtx, plan, offset, origin)
            assert plan.position == position
        for offset, origin in ((101, where.SET), (-1, where.SET), (8, where.CUR), (101, where.END)):
            assert not seek(tensorrt_rtx, plan, offset, origin)
            assert plan.position == 93


def test_the_real_library_refuses_what_is_no_plan(tmp_path: Path) -> None:
    """The one call of the loading that the real library answers without a GPU: by a plan's first bytes."""
    store = BlobStore(tmp_path)
    with store.lock():
        blob = store.put_bytes(make_plan({}))
    runtime = tensorrt_rtx.Runtime(error_log(tensorrt_rtx))
    with CheckedBlob(store, blob, "the plan") as plan, pytest.raises(BundleError) as caught:
        rtx.check_plan(tensorrt_rtx, runtime, plan, "the engine")
    assert caught.value.got == "MALFORMED_ENGINE"
