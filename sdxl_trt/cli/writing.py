"""Where `sdxl-trt run` writes pictures, and what it says about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from sdxl_trt.cli import print_json
from sdxl_trt.errors import OutputError
from sdxl_trt.files import atomic_write, check_writable


def free_name() -> Path:
    """A name in the current folder that nothing has yet: no picture is ever overwritten unasked."""
    taken = {path.name for path in Path().glob("sdxl-*.png")}
    return Path(next(name for i in range(1, 10**9) if (name := f"sdxl-{i:04}.png") not in taken))


def check_target(target: Path) -> None:
    """Refuse a place for pictures before they are made.

    Raises:
        OutputError: it is no PNG file, or cannot be written.
    """
    if target.suffix.lower() != ".png" or target.is_dir():
        raise OutputError(
            f"cannot write {target}", got="another kind of file", expected="a .png file", fix="-o out.png"
        )
    check_writable(target)


def write_pictures(target: Path, seeds: Sequence[int], pictures: Iterable[bytes]) -> list[Path]:
    """Write pictures, each whole or not at all.

    Args:
        target: the file; several get their seed before its suffix.
        seeds: of the pictures.
        pictures: PNG files, in the order of the seeds.

    Raises:
        OutputError: one cannot be written.
    """
    files = []
    for seed, data in zip(seeds, pictures, strict=True):
        file = target if len(seeds) == 1 else target.with_stem(f"{target.stem}-{seed}")
        with atomic_write(file) as stream:
            stream.write(data)
        files.append(file)
    return files


def print_report(report: dict[str, Any], made_by: str, as_json: bool) -> None:
    """Say what was made.

    Args:
        report: for `--json`; its files and seeds for people.
        made_by: for people.
        as_json: print JSON.
    """
    if as_json:
        print_json(report)
        return
    click.echo(made_by, err=True)
    for file, seed in zip(report["files"], report["seeds"], strict=True):
        click.echo(f"{file}  seed {seed}")
