"""`sdxl-trt run --server URL`: pictures that another machine makes, asked for by the same options."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sdxl_trt.cli.pictures import FILE
from sdxl_trt.cli.writing import print_report, write_pictures
from sdxl_trt.errors import UsageError
from sdxl_trt.libraries import require

if TYPE_CHECKING:
    from sdxl_trt.client import Pictures

KEY_VARIABLE = "SDXL_TRT_API_KEY"
_MOST_KEY = 4096
_MASK = ("mask", "mask_blur", "mask_invert", "mask_soft", "mask_padding")
_OWN = ("prompt", "output", "seed", "images", "image", "mask", "server", "api_key_file", "plain_http", "as_json")
"""Parameters of `run` that mean something here; a server's own are the other ones that may be given."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    """The server that is to make pictures."""

    address: str
    key_file: Path | None
    plain_http: bool

    def key(self) -> str | None:
        """The API key, of the file or else of the environment; None: there is none.

        Raises:
            UsageError: the file cannot be read.
        """
        if self.key_file is None:
            return os.environ.get(KEY_VARIABLE) or None
        try:
            with self.key_file.open("rb") as file:
                return file.read(_MOST_KEY).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"the API key in {self.key_file} cannot be read",
                got=getattr(error, "strerror", None) or "no text",
                expected="a file with a key in it, and nothing else",
                fix=f"--api-key-file FILE, or the variable {KEY_VARIABLE}",
            ) from error


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of who makes pictures instead of this host: `server`, `api_key_file` and `plain_http`."""
    for option in (
        click.option("--plain-http", is_flag=True, help="Send the API key to another machine without TLS."),
        click.option(
            "--api-key-file", type=FILE, help=f"The server's API key.  [default: the variable {KEY_VARIABLE}]"
        ),
        click.option("--server", metavar="URL", help="Have a server of `sdxl-trt serve` make the pictures."),
    ):
        command = option(command)
    return command


def chosen_server(address: str | None, key_file: Path | None, plain_http: bool) -> Remote | None:
    """The server that was asked for, if one was.

    Raises:
        UsageError: options of a server without one, or that a server does not take.
    """
    if address is None:
        if key_file is not None or plain_http:
            flag = "--plain-http" if key_file is None else "--api-key-file"
            raise UsageError(f"{flag} needs --server", got="no server", fix=f"--server URL, or leave {flag} out")
        return None
    require("httpx2", "ask a server", "client")
    from sdxl_trt.client.settings import EditSettings

    _refuse([name for name in _given() if name not in _OWN and name not in EditSettings.__annotations__])
    return Remote(address=address, key_file=key_file, plain_http=plain_http)


def run_there(
    remote: Remote, prompt: str, seeds: Sequence[int] | None, target: Path, settings: dict[str, Any], as_json: bool
) -> None:
    """Have pictures made, write them as they come, and say so.

    Args:
        remote: who makes them.
        prompt: of what is to be seen.
        seeds: one for each; None: one of the server's choice.
        target: the PNG file.
        settings: all others of `run`.
        as_json: print JSON.

    Raises:
        SdxlTrtError: as of `Client`.
    """
    from sdxl_trt.runtime.png import read_png

    started = time.monotonic()
    pictures = _pictures(remote, prompt, seeds, settings)
    files = write_pictures(target, pictures.seeds, (picture.data for picture in pictures))
    engines = read_png(files[0]).settings.get("Engines")
    report = {
        "server": remote.address,
        "request": pictures.request_id,
        "bundle": None,
        "target": engines,
        "memory": None,
        "files": [str(file) for file in files],
        "seeds": list(pictures.seeds),
        "seconds": {"load": 0.0, "pictures": round(time.monotonic() - started, 3)},
    }
    print_report(report, f"{remote.address} ({engines}), request {pictures.request_id}", as_json)


def _pictures(remote: Remote, prompt: str, seeds: Sequence[int] | None, settings: dict[str, Any]) -> Pictures:
    from sdxl_trt.client import Client
    from sdxl_trt.runtime.images.opening import open_mask

    given = set(_given())
    image, mask = settings["image"], settings["mask"]
    sent: Any = {name: value for name, value in settings.items() if name in given and name not in _OWN}
    # The server's own default is to take brackets as text.
    sent |= {"seed": seeds, "weighting": settings["weighting"]}
    with Client(remote.address, api_key=remote.key(), plain_http=remote.plain_http) as client:
        if image is not None:
            return client.edit(prompt, image, mask=None if mask is None else open_mask(mask), **sent)
        for name in _MASK:
            if name in given:
                raise UsageError(f"{_flag(name)} needs --image", got="none", fix="--image FILE")
        return client.generate(prompt, **sent)


def _given() -> list[str]:
    """Names of the parameters that the command was called with."""
    context = click.get_current_context()
    named = [(each.name or "", context.get_parameter_source(each.name or "")) for each in context.command.params]
    return [name for name, source in named if source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)]


def _flag(name: str) -> str:
    return next(each.opts[0] for each in click.get_current_context().command.params if each.name == name)


def _refuse(names: Sequence[str]) -> None:
    """Refuse what the server would not be told."""
    if names:
        flags = ", ".join(_flag(name) for name in names)
        raise UsageError(
            f"{flags} cannot be used with --server",
            got="options of this host's own bundle, devices, files and previews",
            expected="options of the pictures: how they are made is the server's choice",
            fix=f"leave {flags} out",
        )
