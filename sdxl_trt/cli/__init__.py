"""The command line. Each command imports its room only when it runs, so that `--help` needs none of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from sdxl_trt.cli.lazy import LazyGroup
from sdxl_trt.errors import OutOfMemory, SdxlTrtError, ran_out_of_memory
from sdxl_trt.version import __version__

COMMANDS = {
    "doctor": "sdxl_trt.cli.doctor",
    "gpus": "sdxl_trt.cli.info",
    "samplers": "sdxl_trt.cli.info",
    "plan": "sdxl_trt.cli.plan",
    "export": "sdxl_trt.cli.build",
    "build": "sdxl_trt.cli.build",
    "inspect": "sdxl_trt.cli.inspect",
    "store": "sdxl_trt.cli.store",
    "run": "sdxl_trt.cli.run",
    "serve": "sdxl_trt.cli.serve",
    "ship": "sdxl_trt.cli.ship",
    "bench": "sdxl_trt.cli.bench",
}
"""Commands and the modules that hold them, in the order they are listed."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 + SIGINT."""

_MORE_MEMORY = "free memory, or raise the limit on it, and run the same command again: what is finished is kept"


@click.command(
    cls=LazyGroup, modules=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="sdxl-trt")
def cli() -> None:
    """Build TensorRT engines for Stable Diffusion XL, and run them without PyTorch.

    A checkpoint goes in, engines for a named GPU come out, and a small runtime turns them into pictures.

    Exit status: 0 done; 2 the request is wrong; 1 it failed, with one message of what was got, what was expected and
    how to fix it; 130 stopped with Ctrl-C. With --json a command prints one JSON object, errors too.
    """


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The `--json` flag that every command has."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")(command)


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False))


def main() -> None:
    """Run a command, and turn what goes wrong into one message and an exit status."""
    try:
        sys.exit(cli(standalone_mode=False) or 0)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; no file was left half-written", err=True)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        if "--json" in sys.argv:
            print_json({"error": "UsageError", "what": error.format_message(), "got": "", "expected": "", "fix": ""})
        else:
            error.show()
        sys.exit(error.exit_code)
    except SdxlTrtError as error:
        _fail(error)
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        _fail(
            OutOfMemory("there is not enough memory", got=f"{type(error).__name__} {error}".strip(), fix=_MORE_MEMORY)
        )


def _fail(error: SdxlTrtError) -> NoReturn:
    if "--json" in sys.argv:
        print_json(error.as_dict())
    else:
        click.echo(f"error: {error}", err=True)
    sys.exit(error.exit_status)
