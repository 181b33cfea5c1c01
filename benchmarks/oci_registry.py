"""A real registry on this machine: Debian's docker-registry, distribution 2.8. For benchmarks and for tests."""

from __future__ import annotations

import contextlib
import functools
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = Path(__file__).parents[1] / ".venv" / "debian"
"""Where packages are unpacked that the system does not have."""

_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http:
  addr: 127.0.0.1:{port}
  secret: of-this-test
{more}"""


class Missing(Exception):
    """A program that is not here and cannot be fetched; says why."""


@functools.cache
def program(package: str) -> Path:
    """A Debian package's program of the same name: from PATH, else from the package, which needs no root.

    Raises:
        Missing: neither.
    """
    script = PACKAGES / package
    found = shutil.which(package) or (script if script.exists() else None)
    if found:
        return Path(found)
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise Missing(f"{package} is not installed, and this system has no apt-get to fetch it with")
    PACKAGES.mkdir(parents=True, exist_ok=True)
    try:
        _unpack([package, *_libraries(package)])
    except subprocess.CalledProcessError as error:
        raise Missing(f"{package} is not installed, and cannot be fetched: {error.stderr.strip()[-200:]}") from error
    libraries = ":".join(map(str, PACKAGES.glob("usr/lib/*-linux-gnu")))
    script.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH="{libraries}" exec "{PACKAGES}/usr/bin/{package}" "$@"\n')
    script.chmod(0o755)
    return script


def _libraries(package: str) -> list[str]:
    """What an installation, which is not done, would add to the system for the program to find."""
    plan = _done("apt-get", "install", "--simulate", "--no-install-recommends", package)
    added = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    return [name for name in added if name.startswith("lib")]


def _unpack(packages: list[str]) -> None:
    _done("apt-get", "download", *packages)
    for file in PACKAGES.glob("*.deb"):
        _done("dpkg", "-x", file.name, ".")
        file.unlink()


def _done(*command: str) -> str:
    done = subprocess.run(command, cwd=PACKAGES, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout


@dataclass(frozen=True, kw_only=True)
class Running:
    """A registry."""

    host: str
    root: Path
    """Its files."""

    def oci(self, name: str) -> str:
        """A reference in it."""
        return f"oci://{self.host}/{name}"

    def blobs(self) -> set[str]:
        """SHA-256 of all that is stored."""
        return {path.parent.name for path in self.root.glob("docker/registry/v2/blobs/sha256/*/*/data")}

    def blob(self, sha256: str) -> Path:
        """The file of a blob."""
        return self.root / "docker/registry/v2/blobs/sha256" / sha256[:2] / sha256 / "data"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def registry(folder: Path, *, auth: str = "", tls: str = "") -> Iterator[Running]:
    """A registry for the length of the block.

    Args:
        folder: for its files.
        auth: the configuration's part of that name.
        tls: the part of `http` of that name.

    Raises:
        Missing: there is none.
    """
    binary = program("docker-registry")
    port = free_port()
    root = folder / "stored"
    root.mkdir(parents=True, exist_ok=True)
    more = (f"  tls: {tls}\n" if tls else "") + (f"auth: {auth}\n" if auth else "")
    (folder / "config.yml").write_text(_CONFIG.format(root=root, port=port, more=more))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([binary, "serve", folder / "config.yml"], stdout=log, stderr=log)
        try:
            _wait(port, process)
            yield Running(host=f"127.0.0.1:{port}", root=root)
        finally:
            process.terminate()
            process.wait(20)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, "the registry ended at once; see its log"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError("the registry does not listen")


def get(url: str) -> bytes:
    """What is there, without a client of ours."""
    kinds = ", ".join(f"application/vnd.oci.image.{kind}.v1+json" for kind in ("index", "manifest"))
    request = urllib.request.Request(url, headers={"Accept": f"{kinds}, */*"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return bytes(answer.read())
