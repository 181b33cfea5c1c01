"""One GPU of the catalogue, and what its architecture does per clock."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

RTX_SMS = (75, 80, 86, 89, 120, 121)
"""Compute capabilities TensorRT for RTX 1.7 builds for: the members of its enumeration `ComputeCapability`."""

FORMS = ("geforce", "laptop", "workstation", "datacenter", "soc")
"""Cards and laptops named GeForce; other cards in workstations; data-centre boards; chips with processor and GPU."""

RTX_FORMS = ("geforce", "laptop", "workstation")
"""RTX cards: what TensorRT for RTX is made for."""

HALF_RATE_FORMS = ("geforce", "laptop")
"""Fp16 and fp8 products accumulate in fp32 at half the rate of the same chip sold under another name."""

CPU = "cpu"
"""The name of the CPU target, taken wherever a GPU's name is. It is no GPU: callers handle it before `find_gpu`."""

PORTABLE = "portable"
"""The name, where engines are built, of those of TensorRT for RTX that are for no compute capability in particular."""

PORTABLE_SMS = tuple(sm for sm in RTX_SMS if sm >= 80)
"""Compute capabilities that they run on: Turing takes none but its own (NVIDIA, "CPU-Only AOT and TensorRT-RTX
Engines")."""


def able_flavours(sm: int) -> tuple[str, ...]:
    """Flavours of engines that a GPU of a compute capability (86 for 8.6) can have, the preferred ones first."""
    return ("tensorrt", *(("tensorrt-rtx",) if sm in RTX_SMS else ()), "onnxruntime-cuda")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What tensor cores of one compute capability do."""

    name: str
    fma: int
    """Dense fp16 multiply-adds per SM and clock, accumulated in fp16."""
    fp8: bool = True
    int8: bool = True
    """Each at twice the rate of fp16; false also where NVIDIA has published no rate."""


ARCHITECTURES = {
    75: Architecture(name="Turing", fma=512, fp8=False),
    80: Architecture(name="Ampere", fma=1024, fp8=False),
    86: Architecture(name="Ampere", fma=512, fp8=False),
    87: Architecture(name="Ampere", fma=1024, fp8=False),
    89: Architecture(name="Ada Lovelace", fma=512),
    90: Architecture(name="Hopper", fma=2048),
    100: Architecture(name="Blackwell", fma=4096),
    103: Architecture(name="Blackwell Ultra", fma=4096),
    110: Architecture(name="Blackwell", fma=4096, int8=False),
    120: Architecture(name="Blackwell", fma=512),
    121: Architecture(name="Blackwell", fma=512),
}
"""By compute capability. The rates that vendors print for whole GPUs agree with these (tests/spine/test_gpus.py)."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU model. Rates are dense tensor-core peaks at boost clock, never those with sparsity.

    Attributes:
        key: the name that --gpu takes and the catalogue shows: lower case, dashes between parts.
        name: the marketing name, with memory and board where there are several.
        aliases: other names for it, as drivers and people write them.
        series: the heading it stands under.
        sm: compute capability, 86 for 8.6 and 120 for 12.0.
        architecture: Ampere, Ada Lovelace, Hopper, Blackwell, …
        form: one of `FORMS`.
        memory_gb: GB as the vendor prints it. Drivers report at least as many times 10^9 bytes of a card's own memory.
        bandwidth_gb_s: memory bandwidth, 10^9 bytes per second.
        sms: streaming multiprocessors.
        boost_mhz: the clock the rates are for; None where the vendor prints rates and no clock.
        fp16_fp32acc_tflops: fp16 inputs accumulated in fp32, 10^12 operations per second (an FMA is two).
        fp16_fp16acc_tflops: fp16 inputs accumulated in fp16.
        fp8_tflops: fp8 inputs accumulated in fp32; None where the hardware has none.
        int8_tops: int8 inputs accumulated in int32; None where nothing is published.
        derivation: how the rates follow from SMs and clock, or that they are the vendor's.
        source: title and place of each document, and whether the figures were compared with it (opened), with
            quotations of it (quoted), or it was not at hand (memory).
        from_memory: the facts that no document at hand spoke for, as the catalogue's files name them.
        note: what a reader of the source would stumble over.
    """

    key: str
    name: str
    aliases: tuple[str, ...] = ()
    series: str
    sm: int
    architecture: str
    form: str
    memory_gb: int
    bandwidth_gb_s: float
    sms: int
    boost_mhz: int | None = None
    fp16_fp32acc_tflops: float
    fp16_fp16acc_tflops: float
    fp8_tflops: float | None = None
    int8_tops: float | None = None
    derivation: str
    source: str
    from_memory: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.key):
            raise ValueError("a key is lower case letters, digits and single dashes")
        if self.form not in FORMS:
            raise ValueError(f"form {self.form!r} is none of {', '.join(FORMS)}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and value <= 0:
                raise ValueError(f"{field.name} is {value}, not positive")
            if value == "" and field.default is dataclasses.MISSING:
                raise ValueError(f"{field.name} is empty")

    @property
    def default_flavour(self) -> str:
        """The engine flavour a build takes unless told: RTX cards get the one that needs no GPU to build.

        Data-centre GPUs get `tensorrt`, which times its kernels on the GPU itself, even where both could serve them:
        such a GPU stands where engines for it can be built.
        """
        return "tensorrt-rtx" if self.form in RTX_FORMS and self.sm in RTX_SMS else "tensorrt"

    @property
    def limits(self) -> tuple[str, ...]:
        """What this project cannot do with the GPU, or not everywhere, in sentences."""
        limits = []
        if self.sm not in RTX_SMS:
            limits.append("TensorRT for RTX does not build for it: engines are of tensorrt, built on the GPU itself.")
        if self.sm == 75:
            limits.append("TensorRT for RTX builds no fp32 matrix product for SM 7.5, so no engine of a VAE in fp32.")
        if self.form == "soc":
            limits.append("Memory is shared with the processor.")
            limits.append(
                "The host is aarch64: an RTX plan for it can be built on any host, but was never run there."
                if self.sm in RTX_SMS
                else "The host is aarch64, and tensorrt there is that of JetPack."
            )
        return tuple(limits)


def normalise(name: str) -> str:
    """A name without what people and drivers write or leave out: case, spaces, dashes, vendor, "GPU", "Edition"."""
    plain = re.sub(r"nvidia|geforce|tesla|generation|edition|gpu|[\s_()-]", "", name.lower())
    return re.sub(r"mobile|withmaxqdesign", "laptop", plain)
