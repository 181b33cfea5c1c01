"""The GPU catalogue: what a build, a plan or a benchmark may know about a GPU that is not in this machine.

The figures, and where each comes from, are in gpus.toml beside this file.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from dataclasses import dataclass
from importlib import resources

from sdxl_trt.decode import DecodeError, decode
from sdxl_trt.errors import UnknownName

RTX_SMS = (75, 80, 86, 89, 120, 121)
"""Compute capabilities TensorRT for RTX 1.7 builds for: the members of its enumeration `ComputeCapability`."""

FORMS = ("geforce", "datacenter")

CPU = "cpu"
"""The name of the CPU target, taken wherever a GPU's name is. It is no GPU: callers handle it before `find_gpu`."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU model. Rates are the vendor's dense tensor-core peaks at boost clock, never those with sparsity.

    Attributes:
        key: the name users type and bundles are named by: lower case, no spaces or dashes.
        name: the marketing name, with memory and board where there are several.
        sm: compute capability, 86 for 8.6 and 120 for 12.0.
        architecture: Ampere, Ada Lovelace, Hopper, Blackwell, …
        form: one of `FORMS`.
        memory_gb: GB as the vendor prints it. Drivers report at least as many times 10^9 bytes.
        bandwidth_gb_s: memory bandwidth, 10^9 bytes per second.
        fp16_fp32acc_tflops: fp16 inputs accumulated in fp32, 10^12 operations per second (an FMA is two).
        fp16_fp16acc_tflops: fp16 inputs accumulated in fp16.
        fp8_tflops: fp8 inputs accumulated in fp32; None where the hardware has none.
        int8_tops: int8 inputs accumulated in int32; None where the hardware has none.
        source: title and place of the vendor's document.
        note: the arithmetic of derived figures, and what else a reader of the source would stumble over.
    """

    key: str
    name: str
    sm: int
    architecture: str
    form: str
    memory_gb: int
    bandwidth_gb_s: float
    fp16_fp32acc_tflops: float
    fp16_fp16acc_tflops: float
    fp8_tflops: float | None = None
    int8_tops: float | None = None
    source: str
    note: str = ""

    def __post_init__(self) -> None:
        if self.key != _normalise(self.key):
            raise ValueError(f"a key is lower case without spaces, dashes or vendor: {_normalise(self.key)!r}")
        if self.form not in FORMS:
            raise ValueError(f"form {self.form!r} is none of {', '.join(FORMS)}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and value <= 0:
                raise ValueError(f"{field.name} is {value}, not positive")
            if value == "" and field.default is dataclasses.MISSING:
                raise ValueError(f"{field.name} is empty")
        if self.fp16_fp16acc_tflops < self.fp16_fp32acc_tflops:
            raise ValueError("fp16 accumulation is never slower than fp32 accumulation: swapped?")

    @property
    def default_flavour(self) -> str:
        """The engine flavour a build takes unless told: RTX cards get the one that needs no GPU to build."""
        return "tensorrt-rtx" if self.form == "geforce" and self.sm in RTX_SMS else "tensorrt"


def load_gpus() -> dict[str, Gpu]:
    """The catalogue by key, in the order of gpus.toml."""
    return parse_gpus(resources.files("sdxl_trt").joinpath("gpus.toml").read_text(encoding="utf-8"))


def parse_gpus(text: str) -> dict[str, Gpu]:
    """Read a catalogue in TOML, one table per GPU, the table's name being the key.

    Raises:
        DecodeError: a field is unknown, missing, mistyped or out of range; says which of which GPU.
        tomllib.TOMLDecodeError: not TOML.
    """
    gpus = {}
    for key, row in tomllib.loads(text).items():
        if not isinstance(row, dict) or "key" in row:
            raise DecodeError(f"{key}: not a table without a field 'key'")
        gpus[key] = decode(Gpu, {"key": key, **row}, where=key)
    return gpus


def find_gpu(name: str) -> Gpu:
    """The GPU of that key or marketing name; case, spaces, dashes, "NVIDIA" and "GeForce" do not matter.

    Raises:
        UnknownName: none in the catalogue; lists the known names and suggests the nearest.
    """
    gpus = load_gpus()
    wanted = _normalise(name)
    for gpu in gpus.values():
        if wanted in (gpu.key, _normalise(gpu.name)):
            return gpu
    raise UnknownName("GPU", name, [*gpus, CPU], fix="`sdxl-trt gpus` lists the catalogue")


def _normalise(name: str) -> str:
    return re.sub(r"nvidia|geforce|[\s_-]", "", name.lower())
