"""`sdxl-trt doctor`: what this host can build and run, what is wrong with it, and what helps.

machine       the driver and the GPUs, memory, disk
libraries     engine libraries that are here, missing or broken
bundles       whom this host trusts, what each bundle can do on each device
problems      what is worth mending
text          all of it as a page

Each gives what --json prints: an error is its parts (what, got, expected, fix), or none.
"""

from __future__ import annotations

import platform
import sys
from typing import Any

import click

from sdxl_trt.cli import json_option, print_json
from sdxl_trt.cli.doctor.bundles import bundles, keys, picture
from sdxl_trt.cli.doctor.libraries import exporting, libraries
from sdxl_trt.cli.doctor.machine import disk, driver, gpus, memory
from sdxl_trt.cli.doctor.problems import problems
from sdxl_trt.cli.doctor.text import page
from sdxl_trt.version import __version__


@click.command("doctor")
@json_option
def doctor_command(as_json: bool) -> None:
    """Say what this host can build and run, and what would help; exit status 0 if it can make a picture."""
    report = examine()
    if as_json:
        print_json(report)
    else:
        click.echo(page(report))
    sys.exit(0 if report["picture"] else 1)


def examine() -> dict[str, Any]:
    """Everything that can be found out without making a picture."""
    from sdxl_trt.runtime.host import this_host

    found, on_gpus = gpus()
    hosts = {"cpu": this_host(), **on_gpus}
    report: dict[str, Any] = {
        "sdxl-trt": __version__,
        "python": platform.python_version(),
        "processor": platform.machine(),
        "driver": driver(),
        "gpus": found,
        "memory": memory(),
        "disk": disk(),
        "libraries": libraries(hosts),
        "export": exporting(),
        "keys": keys(),
        "bundles": bundles(hosts, {gpu["device"]: gpu["free"] for gpu in found if not gpu["error"]}),
    }
    report["picture"] = picture(report)
    report["problems"] = problems(report)
    return report
