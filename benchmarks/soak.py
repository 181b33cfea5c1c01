"""The server near its limit for a long time, with clients that cancel, go away, and send what is wrong.

Requests come at random, whether earlier ones are done or not: through both APIs, of all kinds, 1 to 30 steps and up to
3 pictures. The bundle is loaded anew twice. Each request that is well formed, and was neither cancelled, cut off nor
without time, must get its own pictures, once; memory, files and threads must not grow; and told to end, the server
answers what it has.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import click

from benchmarks.report import RESULTS, Report, publish
from benchmarks.serve import build
from benchmarks.soaking.process import Server
from benchmarks.soaking.run import Plan, soak
from benchmarks.soaking.verdict import report

_PART = click.FloatRange(0, 0.5)


@click.command("soak")
@click.option("--seconds", type=click.FloatRange(10, 86_400), default=1800, show_default=True, help="Of the stream.")
@click.option("--load", type=click.FloatRange(0.05, 2), default=0.9, show_default=True, help="Of the capacity.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of all chance.")
@click.option("--cancelled", type=_PART, default=0.06, show_default=True, help="Part of the requests.")
@click.option("--cut", type=_PART, default=0.1, show_default=True, help="Part whose connection is cut.")
@click.option("--broken", type=_PART, default=0.12, show_default=True, help="Part that is malformed.")
@click.option("--late", type=_PART, default=0.04, show_default=True, help="Part with too short a deadline.")
@click.option("--again", type=_PART, default=0.08, show_default=True, help="Part that was asked for before.")
@click.option("--bundle", type=click.Path(path_type=Path, exists=True), help="[default: the demo model's, built first]")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the JSON file.")
def main(bundle: Path | None, output: Path, **plan: float) -> None:
    """Soak a server; exit status 1 if anything is lost, comes twice, is wrong, or grows."""
    if sum(plan[name] for name in ("cancelled", "cut", "broken", "late", "again")) > 0.9:
        raise click.UsageError("too little is left to be answered: these parts come to more than 0.9")
    found = list[Report]()

    def measure() -> Report:
        found.append(asyncio.run(_soak(bundle or build(), Plan(**plan))))  # type: ignore[arg-type]  # the seed
        return found[0]

    publish("soak", measure, output)
    missed = [aim for aim in found[0].aims if not aim.met]
    if missed:
        faults = "\n".join(str(fault) for fault in found[0].details["faults"][:10])
        raise click.ClickException("\n".join([*map(str, missed), faults, *found[0].details["complaints"][:10]]))


async def _soak(bundle: Path, plan: Plan) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(bundle, Path(folder) / "log")
        try:
            found = await soak(server, plan)
            return report(found, plan, server.complaints())
        finally:
            server.kill()


if __name__ == "__main__":
    main()
