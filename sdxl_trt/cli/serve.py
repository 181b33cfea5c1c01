"""`sdxl-trt serve`: a bundle behind the APIs that people already use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdxl_trt.cli import json_option, print_json
from sdxl_trt.cli.bundles import BundleType, open_bundle
from sdxl_trt.cli.devices import device_options, pulled_bundle
from sdxl_trt.cli.run import SIZE
from sdxl_trt.cli.trust import key_option
from sdxl_trt.errors import UsageError
from sdxl_trt.libraries import require
from sdxl_trt.ship.references import Reference

if TYPE_CHECKING:
    from sdxl_trt.runtime.serve.http.context import Context
    from sdxl_trt.runtime.serve.http.metrics import Metrics
    from sdxl_trt.runtime.serve.http.server import Address
    from sdxl_trt.runtime.serve.service import Service

_LIBRARIES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")
_FILE = click.Path(path_type=Path, dir_okay=False)
_MIB = 2**20


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of who may ask, from where, and for how much."""
    for option in (
        click.option("--ssl-keyfile", type=_FILE, help="Its private key (PEM)."),
        click.option("--ssl-certfile", type=_FILE, help="Certificate (PEM), for HTTPS."),
        click.option("--max-body", type=click.IntRange(1, 4096), default=64, show_default=True, metavar="MIB",
                     help="Of one request, its pictures too."),
        click.option("--connections", type=click.IntRange(1), default=512, show_default=True, metavar="N",
                     help="At a time; more are told to come again (503). Each takes a file descriptor."),
        click.option("--queue", type=click.IntRange(1), default=256, show_default=True, metavar="N",
                     help="Requests that wait or run; more are told to come again (429)."),
        click.option("--no-keys", is_flag=True, help="Let everybody ask, although other hosts reach it."),
        click.option("--admin", is_flag=True, help="With --new-key: an operator's, for /admin too."),
        click.option("--new-key", metavar="NAME", help="Add a key to the file of --keys, print it, and end."),
        click.option("--keys", type=_FILE, help="File of API keys, hashed. Without it everybody may ask."),
        click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: a free one."),
        click.option("--host", default="127.0.0.1", show_default=True, help="Other addresses need --keys."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command("serve")
@click.option(
    "--bundle",
    type=BundleType(),
    help="Folder, or a place to pull it from first (oci://host/name:tag); else the newest that fits this host.",
)
@network_options
@device_options
@click.option("--sizes", type=SIZE, multiple=True, help="To warm up; repeat for several.  [default: the model's own]")
@click.option("--no-warm-up", is_flag=True, help="Be ready at once; the first request of every size is slow.")
@click.option("--allow-pull", is_flag=True, help="/admin/reload may name a bundle, or a place to pull one from.")
@click.option("--drain-seconds", type=click.FloatRange(0), default=300.0, show_default=True,
              help="For requests to end once it is told to stop.")  # fmt: skip
@click.option("--otlp", metavar="URL", help="OpenTelemetry collector.  [default: OTEL_EXPORTER_OTLP_ENDPOINT, or none]")
@key_option
@json_option
def serve_command(
    bundle: Path | Reference | None, new_key: str | None, admin: bool, as_json: bool, **settings: Any
) -> None:
    """Serve a bundle over HTTP: OpenAI's images API at /v1, A1111's at /sdapi/v1.

    Requests of all clients step together, and join and leave between any two steps. The log is JSON on standard error.
    SIGTERM and Ctrl-C finish what runs first, unless they come twice; SIGHUP loads the bundle anew. Exit status: 0 once
    all requests are done; 1 when no device is left.
    """
    for library in _LIBRARIES:
        require(library, "serve")
    if new_key is not None or admin:
        _make_key(settings["keys"], new_key, admin, as_json)
        return
    from sdxl_trt.runtime.serve.heap import share_heaps
    from sdxl_trt.runtime.serve.http.app import create_app
    from sdxl_trt.runtime.serve.http.server import Server

    share_heaps()
    address = _address(settings)
    app = create_app(_context(bundle, settings))
    opened = address.listen()
    server = Server(app, address, settings["drain_seconds"])
    if as_json:
        click.echo(json.dumps({"address": address.url(opened)}))  # one line: who starts it reads that far
    else:
        click.echo(f"listening on {address.url(opened)}; /readyz says when the bundle is loaded")
    server.run(opened)


def _make_key(keys: Path | None, name: str | None, admin: bool, as_json: bool) -> None:
    from sdxl_trt.runtime.serve.http.keys import new_key

    if keys is None or name is None:
        raise UsageError("a new key needs a name and a file", fix="sdxl-trt serve --new-key alice --keys keys.txt")
    secret = new_key(keys, name, admin=admin)
    if as_json:
        print_json({"name": name, "key": secret, "admin": admin, "file": str(keys)})
    else:
        click.echo(secret)
        click.echo(f"this is shown once; its hash is in {keys}", err=True)


def _address(settings: dict[str, Any]) -> Address:
    from sdxl_trt.runtime.serve.http.server import Address

    address = Address(
        host=settings["host"],
        port=settings["port"],
        certificate=settings["ssl_certfile"],
        private_key=settings["ssl_keyfile"],
    )
    if settings["keys"] is None and not settings["no_keys"] and not address.is_loopback:
        raise UsageError(
            "other hosts could ask this server for anything",
            got=f"--host {address.host} without --keys",
            expected="API keys; or an address of this host alone, such as 127.0.0.1",
            fix="sdxl-trt serve --new-key NAME --keys FILE, then --keys FILE; or --no-keys where a proxy checks them",
        )
    if settings["keys"] is not None and settings["no_keys"]:
        raise UsageError("give --keys or --no-keys, not both", fix="leave --no-keys out")
    return address


def _context(bundle: Path | Reference | None, settings: dict[str, Any]) -> Context:
    from sdxl_trt.runtime.serve.http.context import Context, Settings
    from sdxl_trt.runtime.serve.http.metrics import Metrics

    metrics = Metrics()
    devices = _devices(settings)
    service = _service(devices, settings, metrics)

    def load(name: str | None) -> None:
        wanted = bundle if name is None else BundleType().convert(name, None, None)
        if isinstance(wanted, Reference):
            wanted = pulled_bundle(wanted, devices[0])
        open_bundle(wanted, service.load)

    return Context(
        service=service,
        metrics=metrics,
        load=load,
        settings=Settings(
            keys=settings["keys"],
            body=settings["max_body"] * _MIB,
            connections=settings["connections"],
            otlp=settings["otlp"],
            pull=settings["allow_pull"],
        ),
    )


def _devices(settings: dict[str, Any]) -> tuple[str, ...]:
    device, devices = settings["device"], settings["devices"]
    if device is not None and devices is not None:
        raise UsageError("give --device or --devices, not both", fix="--devices 0,1")
    return devices or (device or "cpu",)


def _service(devices: tuple[str, ...], settings: dict[str, Any], metrics: Metrics) -> Service:
    """A service that has no bundle yet."""
    from sdxl_trt.runtime.pipeline import Pipeline
    from sdxl_trt.runtime.serve.limits import Limits
    from sdxl_trt.runtime.serve.service import Service, Setup

    threads, memory = settings["threads"], settings["memory"]
    setup = Setup(
        open=lambda folder, device: Pipeline.load(folder, device=device, threads=threads, memory=memory),
        devices=devices,
        sizes=settings["sizes"],
        warm=not settings["no_warm_up"],
    )
    return Service(setup, Limits(queue=settings["queue"]), metrics)
