"""`sdxl-trt plan`: what pictures of a model would take on a card, before anything is fetched or built."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sdxl_trt.cli import json_option, print_json
from sdxl_trt.cli.build import export_graphs
from sdxl_trt.cli.models import DEFAULT_MODEL, on_hub
from sdxl_trt.cli.progress import shown_progress
from sdxl_trt.cli.run import SIZE
from sdxl_trt.errors import UsageError
from sdxl_trt.files import atomic_write, check_writable
from sdxl_trt.planning import gb
from sdxl_trt.policies import AUTO, POLICIES
from sdxl_trt.spec.profile import format_size

if TYPE_CHECKING:
    from sdxl_trt.planning import Card, Efficiency, ModelCosts, Plan, Time

Size = tuple[int, int]


@click.command("plan")
@click.argument("model", default=DEFAULT_MODEL)
@click.option("--gpu", help="See `sdxl-trt gpus`.")
@click.option("--memory-gb", type=click.FloatRange(0, 10_000, min_open=True), help="The card's.  [default: the GPU's]")
@click.option("--sm", type=int, help="Compute capability, as 86, of a card that the catalogue lacks.")
@click.option("--size", type=SIZE, help="Of the pictures.  [default: the model's own]")
@click.option("--steps", type=click.IntRange(1, 1000), default=30, show_default=True)
@click.option("--batch", type=click.IntRange(1, 64), default=1, show_default=True, help="Pictures at once.")
@click.option("--guidance/--no-guidance", default=True, help="Two rows a picture, or one.  [default: --guidance]")
@click.option("--vae-tile", type=int, metavar="N", help="The VAE has larger pictures in tiles of so many pixels.")
@click.option("--refiner", metavar="MODEL", help="Takes the last fifth of the steps.")
@click.option(
    "--memory",
    "policy",
    type=click.Choice((AUTO, *POLICIES)),
    default=AUTO,
    show_default=True,
    help="Where weights are meanwhile.",
)
@click.option(
    "--report", metavar="FILE.html", type=click.Path(path_type=Path, dir_okay=False), help="Also write it as a page."
)
@json_option
def plan_command(
    model: str,
    gpu: str | None,
    memory_gb: float | None,
    sm: int | None,
    size: Size | None,
    steps: int,
    batch: int,
    guidance: bool,
    vae_tile: int | None,
    refiner: str | None,
    policy: str,
    report: Path | None,
    as_json: bool,
) -> None:
    """Estimate memory, disk, build and time of pictures on a GPU. Nothing is fetched or built.

    MODEL and the refiner are published models by their hub ids, checkpoints that are here (exported once to be
    counted), bundles, or 'demo'.
    """
    from sdxl_trt.planning import Request, Tiled, Unguided, make_plan

    if report:
        check_writable(report)
    card = _card(gpu, memory_gb, sm)
    costs = _costs(model, card)
    make = functools.partial(
        make_plan,
        costs,
        refiner=_costs(refiner, card, refiner=True) if refiner else None,
        options=[*([] if guidance else [Unguided()]), *([] if vae_tile is None else [Tiled(edge=vae_tile)])],
    )
    request = Request(size=size or costs.model.native_size, steps=steps, batch=batch)
    plan = make(card=card, request=request, policy=None if policy == AUTO else policy)
    if report:
        _write(report, plan, make)
    if as_json:
        print_json(as_dict(plan) | ({"report": str(report)} if report else {}))
    else:
        click.echo(shown(plan) + (f"\n{report}" if report else ""))


def _write(report: Path, plan: Plan, make: Callable[..., Plan]) -> None:
    from sdxl_trt.planning import alternatives
    from sdxl_trt.report import page

    text = page(plan, alternatives(plan, make), _asked(click.get_current_context()))
    with atomic_write(report) as file:
        file.write(text.encode())


def _asked(context: click.Context) -> dict[str, str]:
    """Every option of the command, as text."""
    asked = {}
    for parameter in context.command.params:
        if parameter.name and parameter.expose_value and parameter.name not in ("report", "as_json"):
            value, source = context.params[parameter.name], context.get_parameter_source(parameter.name)
            default = " (default)" if source is ParameterSource.DEFAULT and value is not None else ""
            asked[parameter.opts[-1]] = _said(value) + default
    return asked


def _said(value: Any) -> str:
    if isinstance(value, tuple):
        return format_size(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not given" if value is None else str(value)


def _card(gpu: str | None, memory_gb: float | None, sm: int | None) -> Card:
    from sdxl_trt.gpus import CPU, find_gpu
    from sdxl_trt.planning import Card

    if gpu and sm is None and gpu.lower() != CPU:
        return Card.of(find_gpu(gpu), memory_gb)
    if memory_gb and sm is not None and not gpu:
        return Card.by_hand(memory_gb, sm)
    raise UsageError(
        "a plan needs a GPU",
        got=" ".join(f"--{k} {v}" for k, v in {"gpu": gpu, "memory-gb": memory_gb, "sm": sm}.items() if v) or "none",
        expected="--gpu NAME, with --memory-gb where not all of it is free; or --memory-gb and --sm of any card",
        fix="--gpu rtx3060, or --memory-gb 12 --sm 86",
    )


def _costs(model: str, card: Card, *, refiner: bool = False) -> ModelCosts:
    """What is known of a MODEL."""
    from sdxl_trt.bundle import MANIFEST_NAME
    from sdxl_trt.planning import PUBLISHED, of_bundle, of_export, published

    if model in PUBLISHED:
        return published(model)
    if on_hub(model):
        raise UsageError(
            f"{model} is not one of the models whose shapes are known, and plans fetch nothing",
            got="a hub id",
            expected=" or ".join(PUBLISHED) + "; or a checkpoint or bundle that is here",
            fix=f"give the model that it was made from: most are {DEFAULT_MODEL}",
        )
    if (Path(model) / MANIFEST_NAME).is_file():
        return of_bundle(Path(model), card.sm, refiner=refiner)
    with shown_progress() as progress:
        folder, _ = export_graphs(model, None, ("float16",), progress, vae=None)
    return of_export(folder)


def as_dict(plan: Plan) -> dict[str, Any]:
    """For --json: bytes, seconds and operations as they are."""
    request, card = plan.request, plan.card
    seconds = plan.times or (None,) * len(plan.components)
    return {
        "estimated": True,
        "models": plan.models,
        "card": {"name": card.name, "sm": card.sm, "memory": card.memory, "for_engines": plan.available},
        "limits": card.limits,
        "size": request.size,
        "steps": request.steps,
        "batch": request.batch,
        "components": [
            {
                "name": each.name,
                "parameters": each.work.parameters,
                "weights": each.weights,
                "activations": each.activations,
                "activations_of": "TensorRT" if each.scratch else "graph",
                "calls": each.calls,
                "operations": each.calls * each.work.operations(each.axes),
                "bytes": each.calls * each.work.bytes(each.axes),
                "seconds": _fields(time),
            }
            for each, time in zip(plan.components, seconds, strict=True)
        ],
        "policies": [dataclasses.asdict(each) | {"fits": each.fits(plan.available)} for each in plan.policies],
        "policy": plan.chosen.policy,
        "peak": plan.chosen.peak,
        "building": dataclasses.asdict(plan.building),
        "seconds": _fields(plan.total),
        "loading": _fields(plan.loading),
        "preparing": _fields(plan.preparing),
        "efficiency": _fields(plan.efficiency),
    }


def _fields(value: Time | Efficiency | None) -> dict[str, Any] | None:
    return dataclasses.asdict(value) if value else None


def shown(plan: Plan) -> str:
    """A page of text."""
    request, card = plan.request, plan.card
    return "\n".join(
        [
            f"{' with '.join(plan.models)} on {card.name}: {request.batch} × {format_size(request.size)}, "
            f"{request.steps} step{'s' * (request.steps > 1)}. Everything is estimated.",
            *(f"! {sentence}" for sentence in card.limits),
            "",
            *_component_lines(plan),
            "",
            *_policy_lines(plan),
            "",
            *_building_lines(plan),
            *_time_lines(plan),
        ]
    )


def _component_lines(plan: Plan) -> list[str]:
    lines = [f"{'':22}{'weights':>10}{'activations':>13}{'calls':>7}{'TFLOP':>10}{'at least':>11}"]
    told = [each.name for each in plan.components if each.scratch and each.calls]
    for place, each in enumerate(plan.components):
        operations = each.calls * each.work.operations(each.axes) / 1e12
        least = f"{plan.times[place].floor:9.3f} s" if plan.times else ""
        lines.append(
            f"{each.name:22}{gb(each.weights):>10}{gb(each.activations):>13}{each.calls:>7}{operations:>10.3f}{least:>11}"
        )
    if told:
        lines.append(
            f"activations of {', '.join(told)}: as TensorRT said when they were opened here, at their largest shapes"
        )
    return lines


def _policy_lines(plan: Plan) -> list[str]:
    lines = [f"memory for engines: {gb(plan.available)} of {gb(plan.card.memory)}, the rest is the driver's and CUDA's"]
    for each in plan.policies:
        verdict = "fits" if each.fits(plan.available) else f"needs {gb(each.least)}"
        chosen = "  ← this one" if each.policy == plan.chosen.policy else ""
        lines.append(f"  {each.policy:10}peak {gb(each.peak)}, {verdict}{chosen}")
    return lines


def _building_lines(plan: Plan) -> list[str]:
    building = plan.building
    lines = [f"disk: {gb(building.disk)}"]
    if building.seconds is not None and building.memory is not None:
        lines.append(f"export and build: {building.seconds:.0f} s, {gb(building.memory)} of memory")
    return [*lines, f"  {building.source}"]


def _time_lines(plan: Plan) -> list[str]:
    if plan.total is None or plan.efficiency is None:
        return ["time: not known, for the card's rates are not"]
    each, reached = plan.total, plan.efficiency
    parts = {"weights that come and go": plan.loading, "engines that are run once, and recorded, again": plan.preparing}
    return [
        f"time: {each.low:.3g} to {each.high:.3g} s, at least {each.floor:.3g} s",
        *(f"  of it {part.low:.3g} to {part.high:.3g} s: {what}" for what, part in parts.items() if part and part.high),
        f"  at {reached.low:.0%} to {reached.high:.0%} of the peak, as published: {reached.source}",
    ]
