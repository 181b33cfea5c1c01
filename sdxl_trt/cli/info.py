"""`sdxl-trt doctor`, `gpus` and `samplers`: what this host can do, and what there is to choose from."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import platform
import sys
from typing import TYPE_CHECKING, Any

import click

from sdxl_trt.cli import json_option, print_json
from sdxl_trt.cli.models import newest_first
from sdxl_trt.errors import SdxlTrtError
from sdxl_trt.version import __version__

if TYPE_CHECKING:
    from sdxl_trt.gpus import Gpu
    from sdxl_trt.runtime.samplers import Sampler


@click.command("gpus")
@json_option
def gpus_command(as_json: bool) -> None:
    """List the GPUs that engines can be built for, with the source of every figure."""
    from sdxl_trt.gpus import load_gpus

    gpus = load_gpus().values()
    if as_json:
        computed = ("default_flavour", "limits")
        rows = [dataclasses.asdict(gpu) | {name: getattr(gpu, name) for name in computed} for gpu in gpus]
        print_json({"gpus": rows})
        return
    click.echo(_gpu_line("name", "GPU", "GB", "GB/s", "fp16", "fp16+16", "fp8", "int8"))
    for _, group in itertools.groupby(gpus, key=lambda gpu: gpu.series):
        series = list(group)
        click.echo(f"\n{series[0].series}: SM {series[0].sm // 10}.{series[0].sm % 10}, {series[0].default_flavour}")
        for sentence in series[0].limits:
            click.echo(f"  ! {sentence}")
        for gpu in series:
            click.echo(_gpu_row(gpu))
    click.echo(
        "\nRates are dense peaks at boost clock, accumulated in fp32 (fp16+16: in fp16; int8: in int32).\n"
        "* a figure of this row is from memory; which, and the documents of the others: --json\n"
        "A name without a memory size is what the driver reports. 'cpu' names this machine's processor."
    )


def _gpu_row(gpu: Gpu) -> str:
    name = gpu.name.removeprefix("NVIDIA ").removeprefix("GeForce ")
    rates = (gpu.fp16_fp32acc_tflops, gpu.fp16_fp16acc_tflops, gpu.fp8_tflops, gpu.int8_tops)
    return _gpu_line(
        gpu.key,
        name + (" *" if gpu.from_memory else ""),
        str(gpu.memory_gb),
        f"{gpu.bandwidth_gb_s:.0f}",
        *("-" if rate is None else f"{rate:.1f}" if rate < 1000 else f"{rate:.0f}" for rate in rates),
    )


def _gpu_line(key: str, name: str, *columns: str) -> str:
    return " ".join(
        [f"{key:22} {name:32}", *(f"{text:>{width}}" for text, width in zip(columns, (4, 5, 7, 7, 6, 6), strict=True))]
    )


@click.command("samplers")
@json_option
def samplers_command(as_json: bool) -> None:
    """List the samplers, each with its paper and what it is good for."""
    from sdxl_trt.runtime.samplers import SAMPLERS

    rows = [_sampler_row(sampler) for sampler in SAMPLERS.values()]
    if as_json:
        print_json({"samplers": rows})
        return
    for row in rows:
        click.echo(f"{row['name']}: {row['good_for']} ({row['paper']})")
        click.echo(f"  also: {', '.join(row['aliases'])}")
        if row["differs"]:
            click.echo(f"  ! {row['differs']}")
    click.echo("\nUpper and lower case, spaces, _ and - are all one. ! marks where diffusers is not k-diffusion.")


def _sampler_row(sampler: Sampler) -> dict[str, Any]:
    from sdxl_trt.runtime.samplers import find_sampler, variants

    names = [sampler.title, *(variant.title for variant in variants(sampler).values()), *sampler.aliases]
    scheduler = sampler.scheduler.name
    if scheduler and find_sampler(scheduler).name == sampler.name:
        names.append(scheduler)
    return {
        "name": sampler.name,
        "title": sampler.title,
        "aliases": names,
        "scheduler": scheduler or None,
        "paper": sampler.paper,
        "good_for": sampler.good_for,
        "differs": sampler.differs,
        "evaluations_per_step": sampler.order,
    }


@click.command("doctor")
@json_option
def doctor_command(as_json: bool) -> None:
    """Say what this host can build and run; exit status 0 if it can make a picture."""
    report = {
        "sdxl-trt": __version__,
        "python": platform.python_version(),
        "processor": platform.machine(),
        "build": _buildable(),
        "run": _runnable(),
        "problems": _problems(),
        "bundles": _bundles(),
    }
    if as_json:
        print_json(report)
    else:
        for name, value in report.items():
            click.echo(_lines(name, value))
    sys.exit(0 if report["run"] and not report["problems"] else 1)


def _buildable() -> dict[str, str]:
    from sdxl_trt.engines.flavours import available_flavours

    return {
        name: state if isinstance(state, str) else "no: " + _flat(state) for name, state in available_flavours().items()
    }


def _runnable() -> dict[str, str]:
    from sdxl_trt.runtime.host import this_host

    return this_host().flavours


def _problems() -> list[str]:
    """Installations that break each other: both write the module `onnxruntime`."""
    rivals = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    if len(rivals) < 2:
        return []
    return ["onnxruntime and onnxruntime-gpu are both installed and overwrite each other: pip uninstall both, then one"]


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _bundles() -> dict[str, str]:
    """What each bundle of the data folder can do here."""
    from sdxl_trt.bundle import read_manifest
    from sdxl_trt.errors import BundleError
    from sdxl_trt.runtime.host import target_for_host

    states = {}
    for folder in newest_first():
        try:
            states[str(folder)] = target_for_host(read_manifest(folder), folder).name
        except BundleError as error:
            states[str(folder)] = "no: " + _flat(error)
    return states


def _lines(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(
            [f"{name}:", *(f"  {key}: {item}" for key, item in value.items())] if value else [f"{name}: none"]
        )
    if isinstance(value, list):
        return "\n".join([f"{name}:", *(f"  {item}" for item in value)]) if value else f"{name}: none"
    return f"{name}: {value}"


def _flat(error: SdxlTrtError) -> str:
    """An error on one line."""
    return "; ".join(line.strip() for line in str(error).splitlines())
