"""What plans have alike, once they are cut: `python -m benchmarks.store demo`, or `… DIR` for SDXL's true size.

Plans of TensorRT for RTX, built without a GPU from one export, and cut as they leave the library: only hashes of chunks
are kept. For each further plan: the bytes of chunks that the first one, for SM 8.6, does not have. The peer is cutting
every so many bytes, which finds what is alike only where nothing was put in before it.

demo  the demo model, in a minute or two; chunks are 1,024 times smaller, as the plans are
DIR   that of `benchmarks.fullsize`, with its base model; half an hour
"""

from __future__ import annotations

import dataclasses
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from benchmarks.cutting import Cutter, Parts, Plan, Way
from benchmarks.report import RESULTS, Aim, Report, publish
from benchmarks.watch import watch
from sdxl_trt.bench.rows import Row
from sdxl_trt.bundle.chunking import AVERAGE
from sdxl_trt.engines.compiler import Task, compile_apart
from sdxl_trt.engines.flavours import FLAVOURS
from sdxl_trt.engines.targets import TargetRequest
from sdxl_trt.errors import OutputError
from sdxl_trt.exported import ExportIndex, read_index, weights_path, write_index
from sdxl_trt.files import sha256_of
from sdxl_trt.memory import check_memory
from sdxl_trt.paths import DEMO_CHECKPOINT
from sdxl_trt.safetensors import read_header
from sdxl_trt.spec import GraphSpec, Profile, graph_spec, model_graphs

CLI = (sys.executable, "-m", "sdxl_trt")
PRECISION = FLAVOURS["tensorrt-rtx"].precision
AVERAGES = (2, 4, 8, 16)
"""Of the chunks: MiB at full size, KiB of the demo model."""
FIRST, MOST_NEW = "SM 8.6", 5.0
EXPORT_BYTES, PLAN_MEMORY = 300 * 10**6, 11 * 10**9
"""Of base's export (benchmarks/results/fullsize_export.json), and of the largest compilation (fullsize_build.json)."""

Plans = Mapping[str, Mapping[str, Plan]]
"""By variant, then by graph."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A set of plans of one model."""

    name: str
    export: Path
    profile: Profile
    sms: tuple[int, ...] = ()
    again: bool = False
    """Built although there is such a plan."""
    counts: bool = True
    """A further target, profile or rebuild, which the aim is for."""


def variants(export: Path, other_vae: Path, profiles: Sequence[Profile]) -> tuple[Variant, ...]:
    """The first, and what may come after it."""
    usual, other = profiles
    first = Variant(name=FIRST, export=export, profile=usual, sms=(86,))
    return (
        first,
        dataclasses.replace(first, name="SM 8.6 again", again=True),
        dataclasses.replace(first, name="SM 8.9", sms=(89,)),
        dataclasses.replace(first, name="SM 8.6 and 8.9", sms=(86, 89)),
        dataclasses.replace(first, name="portable", sms=()),
        dataclasses.replace(first, name="SM 8.6, other sizes", profile=other),
        dataclasses.replace(first, name="SM 8.6, other VAE", export=other_vae, counts=False),
    )


def measure(checkpoint: Path, folder: Path, profiles: Sequence[Profile], unit: int) -> Report:
    """Build all, and compare.

    Args:
        checkpoint: of the model.
        folder: where its export is, or is made.
        profiles: the usual one, and another.
        unit: bytes that `AVERAGES` are counted in.
    """
    export = folder / f"{checkpoint.name}-export"
    log = export.with_name(export.name + ".log")
    watch([*CLI, "export", checkpoint, "-o", export, "--precision", PRECISION], log=log)
    sizes = [average * unit for average in AVERAGES]
    with tempfile.TemporaryDirectory(dir=folder) as place:
        _change_vae(export, Path(place))
        wanted = variants(export, Path(place), profiles)
        plans = _build_all(wanted, sizes)
    return _report(plans, wanted, unit, {"model": checkpoint.name, "graphs": ", ".join(plans[FIRST])})


def _change_vae(export: Path, folder: Path) -> None:
    """The same export, with other weights in the VAE: each a hundredth more or less."""
    index = read_index(export)
    shutil.copytree(export / PRECISION, folder / PRECISION)
    weights = dict(index.weights)
    for location in index.graphs[PRECISION]["vae_decoder"].weights:
        source, target = weights_path(export, index, location), folder / f"{len(weights)}.safetensors"
        shutil.copyfile(source, target)
        values = np.memmap(target, mode="r+")
        rng = np.random.default_rng(0)
        for tensor in read_header(source)[0].values():
            dtype = {"F16": np.float16, "F32": np.float32}[tensor.dtype]
            part = values[tensor.offset : tensor.offset + tensor.length].view(dtype)
            part *= rng.normal(1, 0.01, part.size).astype(dtype)
        values.flush()
        content = dataclasses.replace(weights[location].content, sha256=sha256_of(target))
        weights[location] = dataclasses.replace(weights[location], path=str(target), content=content)
    absolute = {name: dataclasses.replace(w, path=str((export / w.path).resolve())) for name, w in weights.items()}
    write_index(folder, dataclasses.replace(index, weights=absolute))


def _build_all(wanted: Sequence[Variant], sizes: Sequence[int]) -> Plans:
    """Every plan, cut. What two variants have alike is built once."""
    built = dict[tuple[object, ...], Plan]()
    plans = dict[str, dict[str, Plan]]()
    for variant in wanted:
        index = read_index(variant.export)
        for name in model_graphs(index.model):
            spec = graph_spec(name, index.model, PRECISION)
            key = _ingredients(variant, index, spec)
            plan = None if variant.again else built.get(key)
            if plan is None:
                click.echo(f"build {variant.name}, {name}", err=True)
                plan = _build(variant, spec, sizes)
            built.setdefault(key, plan)
            plans.setdefault(variant.name, {})[name] = plan
    return plans


def _ingredients(variant: Variant, index: ExportIndex, spec: GraphSpec) -> tuple[object, ...]:
    """What decides a plan: as in `sdxl_trt.engines.keys`."""
    entry = index.graphs[PRECISION][spec.name]
    weights = tuple(index.weights[location].content for location in entry.weights)
    return spec.name, entry.content, weights, variant.sms, *(variant.profile.axis(a, spec.name) for a in spec.axes)


def _build(variant: Variant, spec: GraphSpec, sizes: Sequence[int]) -> Plan:
    flavour, cutter = FLAVOURS["tensorrt-rtx"], Cutter(sizes)
    request = TargetRequest(flavour=flavour, sms=variant.sms, processor=platform.machine())
    task = Task(export=variant.export, request=request, spec=spec, profile=variant.profile)
    compile_apart(task, cutter, lambda _done, _total: None)
    return cutter.plan()


def _report(plans: Plans, wanted: Sequence[Variant], unit: int, settings: Mapping[str, str]) -> Report:
    ways = list(plans[FIRST]["step"].cuts)
    rows = [
        Row(who="tensorrt-rtx", what=f"{name}: plans", unit="bytes", samples=(_bytes(graphs),))
        for name, graphs in plans.items()
    ]
    rows += [
        Row(who=_shown(way, unit), what=f"{FIRST}: chunks", unit="", samples=(len(_parts(plans[FIRST], way)),))
        for way in ways
    ]
    aims = list[Aim]()
    for variant in wanted[1:]:
        for way in ways:
            share = 100 * _new(plans, plans[variant.name], way) / _bytes(plans[variant.name])
            rows.append(Row(who=_shown(way, unit), what=f"{variant.name}: new", unit="%", samples=(share,)))
            if variant.counts and way == ("FastCDC", AVERAGE):
                aims.append(Aim(row=rows[-1], bound=MOST_NEW, at_most=True))
    by_graph = {
        name: {
            graph: {"bytes": plan.bytes} | {_shown(way, unit): _new(plans, {graph: plan}, way) for way in ways}
            for graph, plan in graphs.items()
        }
        for name, graphs in plans.items()
    }
    return Report(
        title=f"What further plans add to those for {FIRST}",
        settings=dict(settings),
        distributions=("sdxl-trt", "tensorrt-rtx-cu13", "fastcdc"),
        rows=rows,
        aims=aims,
        notes=(
            f"New: chunks that no plan for {FIRST} has, of all graphs together; by graph, in bytes: the JSON file.",
        ),
        details={"new by graph": by_graph},
        timed=False,
    )


def _bytes(graphs: Mapping[str, Plan]) -> int:
    return sum(plan.bytes for plan in graphs.values())


def _parts(graphs: Mapping[str, Plan], way: Way) -> Parts:
    return {name: size for plan in graphs.values() for name, size in plan.cuts[way].items()}


def _new(plans: Plans, graphs: Mapping[str, Plan], way: Way) -> int:
    """Bytes that the first variant does not have."""
    known = _parts(plans[FIRST], way)
    return sum(size for name, size in _parts(graphs, way).items() if name not in known)


def _shown(way: Way, unit: int) -> str:
    return f"{way[0]}, {way[1] // unit} {'MiB' if unit == 2**20 else 'KiB'}"


def _check_room(folder: Path, checkpoint: Path) -> None:
    """Say how much is written, and refuse where there is no room for twice that."""
    needed = EXPORT_BYTES + sum(path.stat().st_size for path in (checkpoint / "vae").glob("*.safetensors"))
    free = shutil.disk_usage(folder).free
    click.echo(
        f"writes {needed / 1e9:.1f} GB into {folder}, where {free / 1e9:.1f} GB are free; no plan is kept", err=True
    )
    if free < 2 * needed:
        raise OutputError(
            f"there is no room in {folder}",
            got=f"{free / 1e9:.1f} GB free",
            expected=f"{2 * needed / 1e9:.1f} GB",
            fix="make room, or choose another folder",
        )
    check_memory("compiling the UNet", PLAN_MEMORY)


@click.command("store")
@click.argument("folder", metavar="demo|DIR", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the JSON file.")
def main(folder: Path, output: Path) -> None:
    """What plans have alike: the demo model's, or those of the base model in DIR."""
    make = Profile.make
    if str(folder) == "demo":
        usual = make(smallest=(64, 64), best=(128, 128), largest=(256, 256), batch=4)
        other = make(smallest=(128, 128), best=(128, 128), largest=(128, 128), batch=1)
        with tempfile.TemporaryDirectory() as place:
            publish("store_demo", lambda: measure(DEMO_CHECKPOINT, Path(place), (usual, other), 2**10), output)
        return
    _check_room(folder, folder / "base")
    usual = make(smallest=(512, 512), best=(1024, 1024), largest=(1536, 1536), batch=4)
    other = make(smallest=(1024, 1024), best=(1024, 1024), largest=(1024, 1024), batch=1)
    publish("store", lambda: measure(folder / "base", folder, (usual, other), 2**20), output)


if __name__ == "__main__":
    main()
