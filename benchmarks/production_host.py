"""A production host without Docker: what the Dockerfile's runtime stage does, in a virtual environment as its root.

The stage's `pip install` line is read from the Dockerfile. A signed bundle is pushed to a registry on this machine;
then, as a user who owns nothing, on a root that cannot be written to, with a public key as the only configuration,
one command pulls the bundle and makes a picture, and the same command makes another one. For comparison, the size of
torch with diffusers is in results/install_size.json. Needs root (for the read-only mount) and docker-registry.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from benchmarks.install_size import REPOSITORY, Installation, install_into, source_copy
from benchmarks.oci_registry import registry
from benchmarks.report import RESULTS, Report, publish
from benchmarks.watch import Watched, watch
from sdxl_trt.bench.rows import Row
from sdxl_trt.demo_bundle import bundle_folder

UID = 10001
"""The runtime stage's user."""
WHO = "sdxl-trt, production host"
PROMPT = "a large red circle on a white background"
_STAGE = re.compile(r"^FROM \S+ AS runtime\n(?P<lines>.*?)(?=^FROM |\Z)", re.DOTALL | re.MULTILINE)
_INSTALL = re.compile(r"pip install [^\n]*\.whl\)\[(?P<extras>[^\]]+)\]")


_LOCK = """
set -e
mount --make-rprivate /
mount --bind {models} {models}
mount --bind {tmp} {tmp}
mount --bind {python} {kept}
mount -t tmpfs -o mode=755 none {home}
mkdir -p {python}
mount --bind {kept} {python}
mount -o remount,bind,ro /
exec setpriv --reuid "$0" --regid "$0" --clear-groups --no-new-privs --bounding-set=-all env -i "$@"
"""
"""Python may lie in the home of who runs this, which others cannot enter: the rest of that home is not there."""


def extras(flavour: str) -> str:
    """What the Dockerfile's runtime stage installs of sdxl-trt."""
    stage = _STAGE.search((REPOSITORY / "Dockerfile").read_text(encoding="utf-8"))
    found = stage and _INSTALL.search(stage["lines"])
    if not found:
        raise click.ClickException("the Dockerfile's runtime stage has no pip install of the wheel")
    return found["extras"].replace("${FLAVOUR}", flavour)


def locked_down(root: Path, command: list[str | Path]) -> list[str | Path]:
    """A command as the container would run it: see the module's docstring. `root`/models and /tmp are its volumes."""
    models, tmp = root / "models", root / "tmp"
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": tmp,
        "TMPDIR": tmp,
        "XDG_DATA_HOME": models,
        "XDG_CACHE_HOME": models / "cache",
        "SDXL_TRT_PUBLIC_KEY": root / "trusted.pem",
    }
    script = _LOCK.format(models=models, tmp=tmp, python=sys.base_prefix, kept=root / "python", home=Path.home())
    variables = [f"{name}={value}" for name, value in environment.items()]
    return ["unshare", "--mount", "sh", "-c", script, str(UID), *variables, *command]


def prepare(root: Path, flavour: str) -> Installation:
    """The host: its packages, a volume for models, one for /tmp, and a key pair of which it has the public half."""
    root.chmod(0o755)
    for name in ("models", "tmp", "python"):
        (root / name).mkdir()
        os.chown(root / name, UID, UID)
    private, public = root / "release.pem", root / "trusted.pem"
    for line in (f"ecparam -name prime256v1 -genkey -noout -out {private}", f"ec -in {private} -pubout -out {public}"):
        subprocess.run(["openssl", *line.split()], check=True, capture_output=True)
    private.chmod(0o600)
    wanted = extras(flavour)
    with source_copy() as source:
        return install_into(root / "venv", f"sdxl-trt[{wanted}]", [f"{source}[{wanted}]"])


def start(root: Path, reference: str, picture: str) -> Watched:
    """One command on the host: from nothing, or from what was pulled before, to a picture."""
    program, output = root / "venv" / "bin" / "sdxl-trt", root / "models" / picture
    command = locked_down(root, [program, "run", PROMPT, "--seed", "7", "--bundle", reference, "-o", output])
    try:
        return watch(command, log=root / "log")
    except subprocess.CalledProcessError as error:
        raise click.ClickException((root / "log").read_text(encoding="utf-8")) from error


def measure(bundle: Path, flavour: str) -> Report:
    """Rows of all of it."""
    with tempfile.TemporaryDirectory() as folder, registry(Path(folder) / "registry") as running:
        root, reference = Path(folder) / "host", running.oci("team/sdxl:1")
        root.mkdir()
        Path(folder).chmod(0o755)
        installed = prepare(root, flavour)
        signed = shutil.copytree(bundle, Path(folder) / "bundle")
        for line in (f"sign {signed} --key {root}/release.pem", f"push {signed} {reference}"):
            command = [sys.executable, "-m", "sdxl_trt", "ship", *line.split()]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        if "torch" in installed.distributions:
            raise click.ClickException("the production host has torch")
        runs = {what: start(root, reference, f"{what}.png") for what in ("first", "second")}
        bytes_ = sum(path.stat().st_size for path in (root / "models").rglob("*") if path.is_file())
    return Report(
        title="A production host: the Dockerfile's runtime stage in a virtual environment, read-only, not root",
        settings={"flavour": flavour, "bundle": bundle.name, "user": UID},
        distributions=("sdxl-trt", "onnxruntime", "numpy"),
        rows=[
            *installed.rows(),
            Row(who=WHO, what="models volume", unit="MB", samples=(bytes_ / 1e6,)),
            *(
                Row(who=WHO, what=f"{what} start, to a picture", unit="s", samples=(run.seconds,))
                for what, run in runs.items()
            ),
            *(
                Row(who=WHO, what=f"{what} start, memory", unit="MB", samples=(run.resident / 1e6,))
                for what, run in runs.items()
            ),
        ],
        notes=("the first start pulls from a registry on this machine; both check the signature",),
    )


@click.command("production_host")
@click.argument("bundle", default="demo")
@click.option("--flavour", default="cpu", show_default=True, help="As of the Dockerfile.")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the JSON file.")
def main(bundle: str, flavour: str, output: Path) -> None:
    """Make the host, run it twice, and write the JSON."""
    if os.geteuid():
        raise click.UsageError("needs root: a read-only root is mounted for the host")
    publish("production_host", lambda: measure(bundle_folder(bundle), flavour), output)


if __name__ == "__main__":
    main()
