"""Memory policies on the CPU: what each takes. `python -m benchmarks.memory_policies [DIR]`.

Each run is a new process, `sdxl-trt run`, with the demo model at its defaults; and with DIR, in which
`python -m benchmarks.fullsize picture DIR` has built one, a Turbo-like model of SDXL's true size: 512×512, one step, no
guidance, random weights. Policies take turns; files are in the page cache after one run of each that is not counted.

load         libraries and model, by the process's own clock; where engines are swapped, they come later
picture      prompt to file, by the process's own clock
peak memory  largest resident set, which counts the pages of mapped files
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from benchmarks.cold_start import SEED, Start, start
from benchmarks.fullsize_picture import EDGE
from benchmarks.peer import PROMPT
from benchmarks.report import RESULTS, Report, publish, ratio
from sdxl_trt.bench.machine import usable_cpus
from sdxl_trt.bench.rows import Row
from sdxl_trt.demo_bundle import demo_bundle
from sdxl_trt.errors import RunError

CPU_POLICIES = ("resident", "swap")
"""onnxruntime streams no weights."""
FULL = ("--size", f"{EDGE}x{EDGE}", "--steps", "1", "--guidance", "1")


def measure(folder: Path | None, runs: int) -> Report:
    """Peak memory and seconds of each policy.

    Args:
        folder: of the full-size benchmarks; none: the demo model alone.
        runs: that are counted, of each.
    """
    cases: dict[str, tuple[Path, tuple[str, ...]]] = {"demo": (demo_bundle(), ())}
    if folder:
        cases["full size"] = (folder / "turbo-bundle", FULL)
    rows = [
        row
        for name, (bundle, options) in cases.items()
        for row in _case(name, ("--bundle", str(bundle), *options), runs)
    ]
    shown = {name: " ".join(options) or "defaults" for name, (_, options) in cases.items()}
    return Report(
        title="Memory policies on the CPU, each picture in a process of its own",
        settings={"threads": usable_cpus(), **shown},
        distributions=("sdxl-trt", "onnxruntime", "numpy"),
        rows=rows,
        notes=("Pictures of both policies are the same to the bit, or this would have failed.",),
    )


def _case(name: str, options: Sequence[str], runs: int) -> list[Row]:
    """Policies in turns on one model, and how they compare."""
    starts: dict[str, list[Start]] = {policy: [] for policy in CPU_POLICIES}
    for run in range(runs + 1):
        measured = _in_turn(options)
        for policy, one in measured.items():
            starts[policy] += [one] if run else []
    rows = {policy: _rows(f"{name}, {policy}", each) for policy, each in starts.items()}
    resident, swap = (rows[policy] for policy in CPU_POLICIES)
    ratios = [ratio(ours, theirs, ours.what) for ours, theirs in zip(swap, resident, strict=True)]
    return [*resident, *swap, *ratios[1:]]


def _in_turn(options: Sequence[str]) -> Mapping[str, Start]:
    """One run of each policy; the pictures must be alike."""
    program = str(Path(sys.executable).with_name("sdxl-trt"))
    with tempfile.TemporaryDirectory() as folder:
        files = {policy: Path(folder, f"{policy}.png") for policy in CPU_POLICIES}
        starts = {
            policy: start(
                [program, "run", PROMPT, *options, "--memory", policy, "--seed", str(SEED), "-o", str(file), "--json"],
                file,
            )
            for policy, file in files.items()
        }
        if len({file.read_bytes() for file in files.values()}) > 1:
            raise RunError("pictures differ between memory policies", expected="the same to the bit")
    return starts


def _rows(who: str, starts: Sequence[Start]) -> list[Row]:
    quantities = {
        "load": ("s", [each.load for each in starts]),
        "picture": ("s", [each.picture for each in starts]),
        "to picture": ("s", [each.to_picture for each in starts]),
        "peak memory": ("MB", [each.peak / 1e6 for each in starts]),
    }
    return [Row(who=who, what=what, unit=unit, samples=tuple(values)) for what, (unit, values) in quantities.items()]


@click.command()
@click.argument("folder", required=False, metavar="[DIR]", type=click.Path(path_type=Path, exists=True))
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Of each policy.")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the JSON file.")
def main(folder: Path | None, runs: int, output: Path) -> None:
    """Measure memory policies on the demo model and, in DIR, at full size."""
    publish("memory_policies", lambda: measure(folder, runs), output)


if __name__ == "__main__":
    main()
