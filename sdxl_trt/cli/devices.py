"""Where pictures are made: the devices that a command can be told, and a bundle opened on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdxl_trt.cli.bundles import open_bundle
from sdxl_trt.errors import UsageError
from sdxl_trt.policies import AUTO, POLICIES
from sdxl_trt.ship.references import Reference

if TYPE_CHECKING:
    from sdxl_trt.bundle import Host
    from sdxl_trt.runtime.maker import Maker


class DevicesType(click.ParamType[tuple[str, ...]]):
    """`0,1`: names of devices, of which numbers are GPUs."""

    name = "0,1"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:  # noqa: ARG002
        """Parse; names are checked by who opens them."""
        if isinstance(value, tuple):
            return value
        return tuple(f"cuda:{name}" if name.isdecimal() else name for name in value.replace(" ", "").split(","))


def device_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of what pictures are made on: `device`, `devices`, `threads` and `memory`."""
    for option in (
        click.option(
            "--memory",
            type=click.Choice((AUTO, *POLICIES)),
            default=AUTO,
            show_default=True,
            help="All engines stay; one at a time; or that, and the UNet's weights pass through what is left.",
        ),
        click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all this process may use]"),
        click.option("--devices", type=DevicesType(), help="GPUs that share the pictures."),
        click.option("--device", help="cpu; cuda, or cuda:1 for the second GPU.  [default: cpu]"),
    ):
        command = option(command)
    return command


def load_maker(
    bundle: Path | Reference | None, *, device: str | None, devices: tuple[str, ...] | None, **how: Any
) -> tuple[Maker, Path]:
    """A bundle, opened: the one given, else the newest that fits, else the demo model's. And its folder.

    One that is somewhere else is pulled first, what this device needs of it, unless it is here already.

    Raises:
        UsageError: both `device` and `devices` are given.
        SdxlTrtError: as of `Pipeline.load` and `Fleet.load`.
    """
    if device is not None and devices is not None:
        raise UsageError("give --device or --devices, not both", fix="--devices 0,1")
    if isinstance(bundle, Reference):
        bundle = pulled_bundle(bundle, (devices or (device or "cpu",))[0])
    return open_bundle(bundle, lambda folder: _load(folder, device, devices, how))


def pulled_bundle(bundle: Reference, device: str) -> Path:
    """The folder of a bundle that is somewhere else: what a device needs of it is fetched, unless it is here already.

    Raises:
        SdxlTrtError: as of `sdxl-trt ship pull`.
    """
    from sdxl_trt.cli.ship.pull import pulled_folder
    from sdxl_trt.ship.choosing import choose_for

    advice = "--device cuda runs on this host's GPU" if device == "cpu" else "build and push a target for this GPU"
    return pulled_folder(bundle, choose_for([_host(device)], fix=advice))


def _host(device: str) -> Host:
    """What can run on a device, which is opened for a moment where it is a GPU."""
    from sdxl_trt.runtime.cuda import CudaDevice
    from sdxl_trt.runtime.host import gpu_number, this_host

    number = gpu_number(device)
    if number is None:
        return this_host()
    with CudaDevice(number) as opened:
        return this_host(opened)


def _load(bundle: Path, device: str | None, devices: tuple[str, ...] | None, how: dict[str, Any]) -> Maker:
    from sdxl_trt import runtime

    # As text: 'demo' is the demo model.
    if devices is not None:
        return runtime.Fleet.load(str(bundle), devices, **how)
    return runtime.Pipeline.load(str(bundle), device=device or "cpu", **how)
