"""docs/memory.md: what fits which card. `python -m benchmarks.memory_table` writes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from sdxl_trt.errors import OutOfMemory
from sdxl_trt.files import atomic_write
from sdxl_trt.planning import RESERVE, Option, Refined, Request, Tiled, Unguided, choose, components, published
from sdxl_trt.planning.policies import LEAST_STREAMED, least_memory

PATH = Path(__file__).parents[1] / "docs" / "memory.md"
CARDS = (4, 6, 8, 12, 16, 24)
"""GB."""
BASE = published("stabilityai/stable-diffusion-xl-base-1.0")
REFINER = published("stabilityai/stable-diffusion-xl-refiner-1.0")

TEXT = f"""\
# What fits which card

Written by `python -m benchmarks.memory_table`; everything in it is *estimated* by the arithmetic of `sdxl-trt plan`,
nothing measured. SDXL base (fine-tunes of it and Turbo are of the same shapes), the UNet and text encoders in float16,
the VAE in float32. Each cell has the fastest policy that fits, and the peak of weights and activations in GB; beside
them, {RESERVE / 1e9:.1f} GB of each card are left to the driver, CUDA's context and a desktop.

{{table}}

* **resident**: all engines stay on the card.
* **swap**: one engine at a time: text encoders, then the UNet, then the VAE. Weights come from host memory once per
  request; the files of the one that comes next are read while the one before it runs. Each is bound (which runs it
  once) and recorded again, which `plan` counts.
* **stream**: as swap, and the UNet's weights pass through what memory is left in every step. The peak is what it would
  use of the card; it works as long as a part of {LEAST_STREAMED:.0%} of the weights finds room.
* **—**: none of them fits; in brackets the memory of a card that would do.

Activations are counted from the exported graphs: the most bytes of tensors that exist while any convolution, product or
attention runs. What a kernel needs for itself beside that is not in it.
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line of the table."""

    what: str
    edge: int
    batch: int = 1
    options: tuple[Option, ...] = ()

    def cell(self, memory_gb: int) -> str:
        """What a card would do."""
        request = Request(size=(self.edge, self.edge), steps=30, batch=self.batch)
        found = components(BASE, request, self.options)
        try:
            memory = choose(found, memory_gb * 10**9 - RESERVE)
        except OutOfMemory:
            return f"— ({(least_memory(found) + RESERVE) / 1e9:.1f})"
        return f"{memory.policy}, {memory.peak / 1e9:.1f}"


CASES = (
    Case(what="512², no guidance (Turbo)", edge=512, options=(Unguided(),)),
    Case(what="512²", edge=512),
    Case(what="1024²", edge=1024),
    Case(what="1024², four at once", edge=1024, batch=4),
    Case(what="1024², with the refiner", edge=1024, options=(Refined(base=BASE, refiner=REFINER),)),
    Case(what="1024², VAE in tiles of 512²", edge=1024, options=(Tiled(edge=512),)),
    Case(what="1536²", edge=1536),
    Case(what="2048²", edge=2048),
    Case(what="2048², VAE in tiles of 512²", edge=2048, options=(Tiled(edge=512),)),
)


def page() -> str:
    """The whole of docs/memory.md."""
    lines = [["one picture, or", *(f"{card} GB" for card in CARDS)], ["---"] * (len(CARDS) + 1)]
    lines += [[case.what, *map(case.cell, CARDS)] for case in CASES]
    return TEXT.format(table="\n".join(f"| {' | '.join(line)} |" for line in lines))


@click.command()
def main() -> None:
    """Write docs/memory.md."""
    with atomic_write(PATH) as file:
        file.write(page().encode())


if __name__ == "__main__":
    main()
