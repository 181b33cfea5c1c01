"""Size of the runtime's installation, beside torch and diffusers.

Each is a fresh virtual environment into which pip installs what a user would: `sdxl-trt[cpu]`,
`sdxl-trt[tensorrt-rtx]` (with `ship` too, which pulls and checks bundles), and diffusers with what its SDXL pipeline
needs. Size is that of all files in site-packages as pip leaves them, compiled bytecode included; the environments have
no pip of their own. sdxl-trt is installed from a copy of this repository. Takes minutes, 2 GB of disk, and a network
(or pip's cache).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from benchmarks.peer import PACKAGES
from benchmarks.report import Report, command, ratio
from sdxl_trt.bench.machine import versions
from sdxl_trt.bench.rows import Row
from sdxl_trt.paths import DEMO_CHECKPOINT

REPOSITORY = Path(__file__).parents[1]
EXTRAS = ("cpu", "tensorrt-rtx", "tensorrt-rtx,ship")
NOT_INSTALLED = shutil.ignore_patterns(".*", "build", "dist", "out", "*.egg-info", "__pycache__")
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
"""Where torch's builds without CUDA are."""


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What pip left in site-packages."""

    who: str
    parts: dict[str, int]
    """Bytes of every file and folder at its top."""
    distributions: dict[str, str]
    """Versions by name."""

    def rows(self) -> tuple[Row, Row]:
        """Size, and number of packages."""
        return (
            Row(who=self.who, what="site-packages", unit="MB", samples=(sum(self.parts.values()) / 1e6,)),
            Row(who=self.who, what="packages", unit="", samples=(len(self.distributions),)),
        )

    def largest(self) -> str:
        """Where most of it goes."""
        parts = sorted(self.parts.items(), key=lambda part: -part[1])[:6]
        return f"largest in {self.who}: " + ", ".join(f"{name} {bytes_ / 1e6:.0f} MB" for name, bytes_ in parts)


def install(who: str, *calls: Sequence[str]) -> Installation:
    """Make a fresh environment, `pip install` with the arguments of each call, measure it, and remove it."""
    with tempfile.TemporaryDirectory() as folder:
        return install_into(Path(folder), who, *calls)


def install_into(folder: Path, who: str, *calls: Sequence[str]) -> Installation:
    """As `install`, but the environment stays."""
    click.echo(f"installing {who} …", err=True)
    _run("venv", "--without-pip", str(folder))
    for arguments in calls:
        _run("pip", "--python", f"{folder}/bin/python", "install", "--quiet", *arguments)
    (packages,) = folder.glob("lib/python*/site-packages")
    found = importlib.metadata.distributions(path=[str(packages)])
    return Installation(
        who=who,
        parts={path.name: size(path) for path in packages.iterdir()},
        distributions={distribution.name: distribution.version for distribution in found},
    )


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(map(size, path.iterdir()))


def _run(module: str, *arguments: str) -> None:
    status = subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode
    if status:
        raise click.ClickException(f"exit status {status}: python -m {module} {' '.join(arguments)}")


@contextlib.contextmanager
def source_copy() -> Iterator[Path]:
    """The repository's sources somewhere else: pip would leave its build among them."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "sdxl-trt")
        shutil.copytree(REPOSITORY, source, symlinks=True, ignore=NOT_INSTALLED)
        yield source


def install_all() -> list[Installation]:
    """The runtime for CPUs and for RTX GPUs, and the peer with the versions that are installed here."""
    torch, *peer = (f"{name}=={version}" for name, version in versions(PACKAGES).items())
    with source_copy() as source:
        return [
            *(install(f"sdxl-trt[{extras}]", [f"{source}[{extras}]"]) for extras in EXTRAS),
            # That index is for torch alone; the rest comes from where pip always looks.
            install("torch + diffusers", ["--no-deps", "--extra-index-url", TORCH_INDEX, torch], [torch, *peer]),
        ]


def measure(runs: int) -> Report:  # noqa: ARG001
    """Size of the runtime's installation, beside torch and diffusers. Always one run."""
    installations = install_all()
    rows = [installation.rows() for installation in installations]
    *ours, theirs = [total for total, _ in rows]
    torch = installations[-1].distributions["torch"]
    return Report(
        title="Size of a fresh installation",
        settings={},
        distributions=("pip",),
        rows=[*(row for pair in rows for row in pair), *(ratio(theirs, own, "site-packages") for own in ours)],
        notes=(
            *(installation.largest() for installation in installations),
            f"the package sdxl_trt includes the demo checkpoint, {size(DEMO_CHECKPOINT) / 1e6:.1f} MB",
            f"torch is {torch}; a build of torch with CUDA libraries is not measured",
        ),
        details={installation.who: asdict(installation) for installation in installations},
        timed=False,
    )


if __name__ == "__main__":
    command("install_size", measure, runs=1)()
