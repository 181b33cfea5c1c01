"""The runtime does without torch and everything else that only building needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sdxl_trt.cli import COMMANDS

BUILDERS = ("torch", "diffusers", "transformers", "onnx", "onnx_ir", "onnxscript", "polygraphy", "safetensors")
LIBRARIES = ("onnxruntime", "tensorrt", "tensorrt_rtx", "cuda", "PIL")

BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocked())
"""

RUN = """
from sdxl_trt import Pipeline

result = Pipeline.load({bundle!r})("a red circle", steps=1, seed=0)
assert result.images[0].size == (128, 128)
assert not set(sys.modules) & {blocked}
print("made a picture")
"""


def run_python(program: str) -> str:
    """Standard output of a program in a process of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["sdxl_trt", "sdxl_trt.runtime", "sdxl_trt.runtime.pipeline"])
def test_importing_the_runtime_imports_no_engine_library(module: str) -> None:
    program = f"import sys, {module}\nprint(*(n for n in {BUILDERS + LIBRARIES} if n in sys.modules))"
    assert run_python(program).split() == []


def test_all_that_the_runtime_offers_can_be_imported() -> None:
    program = "import sdxl_trt.runtime as r\nprint(*(getattr(r, name).__name__ for name in r.__all__))"
    assert run_python(program).split() == ["Fleet", "Pipeline", "PromptEmbeds", "Request", "Resolved", "Result"]


def test_a_bundle_runs_where_no_builder_can_be_imported(demo_bundle: Path) -> None:
    blocked = repr({*BUILDERS, "tensorrt", "tensorrt_rtx", "click", "rich"})
    program = BLOCK.format(blocked=blocked) + RUN.format(bundle=str(demo_bundle), blocked=blocked)
    assert run_python(program) == "made a picture\n"


def test_the_block_blocks() -> None:
    program = BLOCK.format(blocked={"onnx"}) + "try:\n    import onnx.helper\nexcept ImportError as e:\n    print(e)"
    assert run_python(program) == "onnx is blocked\n"


def test_every_help_and_doctor_where_no_library_can_be_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))  # doctor looks at the bundles there
    blocked = {*BUILDERS, *LIBRARIES}
    program = BLOCK.format(blocked=blocked) + (
        "from sdxl_trt.cli import COMMANDS, cli\n"
        "for command in ([], *([name] for name in COMMANDS)):\n"
        "    cli([*command, '--help'], standalone_mode=False)\n"
        f"assert not set(sys.modules) & {blocked}\n"
        "try:\n    cli(['doctor'], standalone_mode=False)\nexcept SystemExit as e:\n    print('status', e.code)\n"
    )
    out = run_python(program)
    assert out.count("Usage: ") == 1 + len(COMMANDS)
    assert "pip install 'sdxl-trt[export,build]'" in out
    assert "GPUs: none" in out
    assert "picture: none can be made here" in out
    assert "status 1" in out
