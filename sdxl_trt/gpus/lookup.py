"""From what somebody calls a GPU to the GPU."""

from __future__ import annotations

import difflib
import re

from sdxl_trt.errors import UnknownName, UsageError
from sdxl_trt.gpus.catalogue import load_gpus
from sdxl_trt.gpus.model import CPU, PORTABLE, Gpu, normalise

_WITHOUT_TENSOR_CORES = re.compile(
    r"(gtx?|mx)\d+.*|(9|10|16)[1-9]0(ti|super)?|titanxp?|quadro[kmp]\d+|[kmp]\d{1,3}((pcie|sxm).*)?"
)
_VOLTA = re.compile(r"titanv|(quadrog)?v100.*")


def find_gpu(name: str) -> Gpu:
    """The GPU of that key, marketing name, driver's name or alias; "RTX" may be left out, see also `normalise`.

    A name without a memory size means the model that the driver reports so: of several, the commoner (rtx3060 has
    12 GB) or, where both are common, the smaller (rtx4060ti has 8 GB).

    Raises:
        UnknownName: none in the catalogue; names the nearest.
        UsageError: a GPU that no engines can be built for; says why.
    """
    by_name = {normalise(known): gpu for gpu in load_gpus().values() for known in (gpu.key, gpu.name, *gpu.aliases)}
    wanted = normalise(name)
    for spelled in (wanted, f"rtx{wanted}"):
        if spelled in by_name:
            return by_name[spelled]
    _check_tensor_cores(name, wanted)
    keys = dict.fromkeys(by_name[spelled].key for spelled in _near(wanted, list(by_name)))
    raise UnknownName(
        "GPU",
        name,
        [*keys, CPU],
        fix=f"`sdxl-trt gpus` lists all {len(load_gpus())}; --gpu {PORTABLE} builds for all RTX GPUs since RTX 30",
    )


def _near(wanted: str, known: list[str]) -> list[str]:
    """The names that could be meant: of the same number if there are any, otherwise those spelled alike."""
    number = re.search(r"\d{4}", wanted)
    same = [spelled for spelled in known if number and number[0] in spelled]
    return same or difflib.get_close_matches(wanted, known, n=8, cutoff=0.6)


def _check_tensor_cores(name: str, wanted: str) -> None:
    """Say why a GPU that exists is not in the catalogue."""
    for pattern, reason in (
        (_WITHOUT_TENSOR_CORES, "it has no tensor cores, which fp16 engines are for: RTX begins where they do"),
        (_VOLTA, "it is of Volta, SM 7.0: TensorRT 10.13 and TensorRT for RTX begin at SM 7.5"),
    ):
        if pattern.fullmatch(wanted):
            raise UsageError(
                f"no engines can be built for {name!r}",
                got=reason,
                expected="a GPU of compute capability 7.5 or later with tensor cores, see `sdxl-trt gpus`",
                fix=f"--gpu {CPU} builds engines for the processor, which run on any such host",
            )
