"""`python -m benchmarks [NAME …]`: each benchmark in a process of its own, so that none carries another's imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from benchmarks.report import RESULTS

NAMES = ("cold_start", "host_overhead", "pictures", "install_size")


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", type=click.Choice(NAMES))
@click.option("--runs", type=click.IntRange(1), help="Of everything timed.  [default: each benchmark's own]")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the JSON files.")
def main(names: tuple[str, ...], runs: int | None, output: Path) -> None:
    """Run benchmarks: cold_start, host_overhead, pictures and install_size, or those named."""
    options = ["--output", str(output), *(["--runs", str(runs)] if runs else [])]
    failed = [name for name in names or NAMES if _run(name, options)]
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}")


def _run(name: str, options: list[str]) -> int:
    status = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], check=False).returncode
    click.echo()
    return status


main()
