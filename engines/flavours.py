"""The libraries that engines are compiled with, and whether they can compile here.

Integer values of TensorRT's enumerations are never kept: TensorRT 11 renumbered them. Flags are named.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sdxl_trt.bundle.chunking import cutting_library
from sdxl_trt.errors import FlavourUnavailable
from sdxl_trt.gpus import RTX_SMS
from sdxl_trt.libraries import EXTRAS, require


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """One kind of engine."""

    name: str
    module: str
    """Python module of the library."""
    oldest: tuple[int, int]
    """Earliest version with all that is used here."""
    precision: str
    """Of the graphs it takes: 'float16' or 'float32'."""
    sms: tuple[int, ...] | None = None
    """Compute capabilities it compiles for on any host; none: it compiles nothing, and runs on all of its kind; None:
    only that of the GPU in the host."""
    flags: tuple[str, ...] = ()
    """Members of BuilderFlag to set ('+NAME') or clear ('-NAME')."""

    @property
    def runs_here(self) -> bool:
        """Its engines run on the processor, so on whatever host builds them."""
        return self.name == "onnxruntime"


FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        Flavour(name="onnxruntime", module="onnxruntime", oldest=(1, 31), precision="float32", sms=()),
        Flavour(name="onnxruntime-cuda", module="onnxruntime", oldest=(1, 31), precision="float16", sms=()),
        # TF32 rounds the operands of float32 products to 10 bits, and the state between steps is float32.
        Flavour(name="tensorrt", module="tensorrt", oldest=(10, 13), precision="float16", flags=("-TF32",)),
        Flavour(
            name="tensorrt-rtx",
            module="tensorrt_rtx",
            oldest=(1, 7),
            precision="float16",
            sms=RTX_SMS,
            # Without it an engine allocates memory while it runs, and cannot be captured into a CUDA graph.
            flags=("-TF32", "+REQUIRE_USER_ALLOCATION"),
        ),
    )
}


def library(flavour: Flavour) -> Any:
    """The module of a flavour.

    Raises:
        FlavourUnavailable: it is not installed.
    """
    try:
        return require(flavour.module, f"build {flavour.name} engines")
    except FlavourUnavailable as error:
        if flavour.sms is not None:
            raise
        # Installing it here would only lead to the next refusal: it compiles for no GPU but the one it runs on.
        expected = f"{error.expected}, and the GPU they are for: {flavour.name} times its kernels on it"
        fix = f"on a host with that GPU: {error.fix}; or, for an RTX GPU, --flavour tensorrt-rtx, which needs no GPU"
        raise FlavourUnavailable(error.what, got=error.got, expected=expected, fix=fix) from None


def check_buildable(flavour: Flavour, sms: Collection[int] = ()) -> str:
    """Make sure that engines of a flavour can be compiled on this host.

    Args:
        flavour: the flavour.
        sms: compute capabilities to compile for; none: any that is possible here.

    Returns:
        The version of its library.

    Raises:
        FlavourUnavailable: the library is missing or too old; or it needs the target's GPU, and that is not here.
    """
    require("onnx", "read exported graphs")
    cutting_library()
    version = check_version(flavour, library(flavour))
    if flavour.sms is None:
        check_gpu(flavour, sms, host_sm())
    return version


def check_version(flavour: Flavour, module: Any) -> str:
    """The version of a flavour's library, once it is recent enough.

    Raises:
        FlavourUnavailable: it is too old.
    """
    version = str(module.__version__)
    if tuple(map(int, version.split(".")[:2])) < flavour.oldest:
        raise FlavourUnavailable(
            f"{flavour.module} is too old for {flavour.name} engines",
            got=version,
            expected="{}.{} or later".format(*flavour.oldest),
            fix=f"pip install --upgrade 'sdxl-trt[{EXTRAS[flavour.module]}]'",
        )
    return version


def check_gpu(flavour: Flavour, sms: Collection[int], present: int) -> None:
    """Refuse targets other than the GPU that is present, for a flavour that compiles on its target alone.

    Raises:
        FlavourUnavailable: they differ.
    """
    for sm in sms:
        if sm != present:
            raise FlavourUnavailable(
                f"{flavour.name} engines for SM {sm} cannot be built on this host",
                got=f"a GPU of SM {present}",
                expected=f"a GPU of SM {sm}: {flavour.name} times its kernels on the GPU they are for",
                fix="run the same build on a host with that GPU"
                + ("; or build with --flavour tensorrt-rtx, which needs no GPU" if sm in RTX_SMS else ""),
            )


def host_sm() -> int:
    """Compute capability (86 for 8.6) of the GPU that TensorRT builds on: the first that CUDA shows.

    Raises:
        FlavourUnavailable: cuda-python, the driver or a GPU is missing.
    """
    driver = require("cuda.bindings.driver", "find the GPU")
    try:
        _called(driver.cuInit(0))
        device = _called(driver.cuDeviceGet(0))
        attribute = driver.CUdevice_attribute
        major, minor = (
            int(_called(driver.cuDeviceGetAttribute(which, device)))
            for which in (
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
    except RuntimeError as error:
        raise FlavourUnavailable(
            "TensorRT finds no GPU on this host",
            got=str(error),
            expected="an NVIDIA GPU and its driver",
            fix="build on the GPU's own host; or, for an RTX GPU, with --flavour tensorrt-rtx, which needs none",
        ) from error
    return 10 * major + minor


def _called(result: tuple[Any, ...]) -> Any:
    """The value of a driver call, which returns its status first."""
    status, *values = result
    if int(status):
        raise RuntimeError(getattr(status, "name", str(status)))
    return values[0] if values else None


def available_flavours() -> dict[str, str | FlavourUnavailable]:
    """For every flavour the version of its library if engines can be built here, or the reason why not."""

    def state(flavour: Flavour) -> str | FlavourUnavailable:
        try:
            return check_buildable(flavour)
        except FlavourUnavailable as error:
            return error

    return {name: state(flavour) for name, flavour in FLAVOURS.items()}
