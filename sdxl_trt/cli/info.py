"""`sdxl-trt gpus` and `samplers`: what there is to choose from."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import click

from sdxl_trt.cli import json_option, print_json

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
