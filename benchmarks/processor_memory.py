"""What engines take on the processor, foretold and measured: `python -m benchmarks.processor_memory`.

Each engine of the demo model runs once in a process of its own, at several shapes. Foretold is the sum of

* a process that has imported the runtime and opened a session, measured in the same run,
* the engine's weights, which onnxruntime maps from their file and, for most products, copies in another order,
* at each product, convolution or attention the live activations as `sdxl-trt plan` counts them, and an attention's
  scores; the most of all. The plan counts for engines that fuse attention, and what is elementwise into products;
  onnxruntime on the processor writes scores, normalisations and activation functions to memory, so it takes more.

The two factors are fitted at 128×128 with one picture. What they are worth shows at the other shapes.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import onnx

from benchmarks.report import RESULTS, Aim, Report, publish
from sdxl_trt.bench.rows import Row
from sdxl_trt.bundle import BlobStore, read_manifest
from sdxl_trt.costs import count
from sdxl_trt.costs.counting import HEAVY
from sdxl_trt.costs.shapes import Tensor, propagate

WEIGHTS, ACTIVATIONS = 1.45, 1.7
"""Bytes in memory for each byte counted."""
MOST_ERROR = 15.0
"""Percent."""
RUN = """
import json, sys
from pathlib import Path
from sdxl_trt.bundle import BlobStore, read_manifest
from sdxl_trt.runtime.device import HostDevice
from sdxl_trt.runtime.engine import allocate
from sdxl_trt.runtime.ort import OrtEngine

bundle, name, axes = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
engine = OrtEngine(BlobStore(bundle), read_manifest(bundle).targets[0].engines[name], name, threads=1)
if axes:
    buffers = allocate(engine, HostDevice(), axes)
    for buffer in buffers.values():
        buffer.array.fill(0)  # memory that nobody wrote to is not there
    engine.bind(buffers).enqueue(None)
status = Path("/proc/self/status").read_text()
print(1024 * int(status.partition("VmHWM:")[2].split()[0]))
"""
"""Opens an engine, runs it at the given shape if there is one, and prints the most bytes that were resident."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One engine at one shape."""

    engine: str
    width: int
    height: int
    pictures: int = 1

    @property
    def axes(self) -> dict[str, int]:
        """Lengths by name; guidance gives each picture two rows."""
        sizes = {"height": self.height // 8, "width": self.width // 8}
        if self.engine == "step":
            return {"rows": 2 * self.pictures, "slots": self.pictures, "tokens": 77, **sizes}
        return {"slots": 1, **sizes} if self.engine.startswith("vae") else {"rows": 2 * self.pictures}

    def __str__(self) -> str:
        return f"{self.engine}, {self.pictures} × {self.width}×{self.height}"


CASES = (
    *(Case(engine=name, width=128, height=128) for name in ("text_encoder", "step", "vae_decoder")),
    *(Case(engine="step", width=w, height=h, pictures=n) for w, h, n in ((192, 96, 1), (256, 256, 4), (512, 512, 1))),
    *(Case(engine="vae_decoder", width=w, height=h) for w, h in ((96, 192), (256, 256), (512, 512))),
    Case(engine="vae_encoder", width=256, height=256),
    Case(engine="text_encoder_2", width=128, height=128, pictures=4),
)


def peak(bundle: Path, engine: str, axes: dict[str, int]) -> int:
    """Bytes of a process that opens an engine and, where it is given a shape, runs it once.

    Raises:
        subprocess.CalledProcessError: it failed; its own message was printed.
    """
    command = [sys.executable, "-c", RUN, str(bundle), engine, json.dumps(axes)]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def foretold(graph: Any, axes: dict[str, int], fixed: float) -> float:
    """Bytes of such a process, by its engine's graph (onnx.ModelProto)."""
    counts, tensors = count(graph, axes), propagate(graph, axes)
    heavy = [node for node in graph.graph.node if node.op_type in HEAVY]
    most = max(ACTIVATIONS * live + _scores(node, tensors) for live, node in zip(counts.live, heavy, strict=True))
    return fixed + WEIGHTS * counts.weights + most


def _scores(node: Any, tensors: Mapping[str, Tensor]) -> int:
    """Bytes of an attention's float32 scores [N, heads, queries, keys]; none for other nodes."""
    if node.op_type != "Attention":
        return 0
    query, key = (tensors[name].shape for name in node.input[:2])
    return 4 * math.prod(query[:-1]) * key[-2]


def measure(bundle: Path) -> Report:
    """Foretold and measured, and by how many percent the first is off."""
    store, engines = BlobStore(bundle), read_manifest(bundle).targets[0].engines
    graphs = {name: onnx.load(store.path(entry.file), load_external_data=False) for name, entry in engines.items()}
    fixed = peak(bundle, "text_encoder", {}) - WEIGHTS * engines["text_encoder"].weights[0].bytes
    rows = [Row(who="process", what="without weights and activations", unit="MB", samples=(fixed / 1e6,))]
    aims = []
    for case in CASES:
        wanted, got = foretold(graphs[case.engine], case.axes, fixed), peak(bundle, case.engine, case.axes)
        error = Row(who=str(case), what="error", unit="%", samples=(abs(100 * (wanted / got - 1)),))
        for what, value in (("foretold", wanted), ("measured", got)):
            rows.append(Row(who=str(case), what=what, unit="MB", samples=(value / 1e6,)))
        rows.append(error)
        aims.append(Aim(row=error, bound=MOST_ERROR, at_most=True))
    return Report(
        title="Peak memory of the demo model's engines on the processor",
        settings={"threads": 1, "weights": f"× {WEIGHTS}", "activations": f"× {ACTIVATIONS}"},
        distributions=("sdxl-trt", "onnxruntime", "numpy"),
        rows=rows,
        aims=aims,
        timed=False,
    )


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the JSON file.")
def main(output: Path) -> None:
    """Foretell and measure what each engine of the demo model takes."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("--gpu", "cpu", "--sizes", "64x64..512x512", "-o", folder)
        command = [sys.executable, "-m", "sdxl_trt", "build", "demo", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        publish("processor_memory", lambda: measure(Path(folder)), output)


if __name__ == "__main__":
    main()
