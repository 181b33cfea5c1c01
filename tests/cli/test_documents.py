"""Commands that the documents show are commands that there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from sdxl_trt.cli import cli

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md",
    "Dockerfile",
    *(f"docs/{name}.md" for name in ("memory", "production", "registries", "serving", "trust")),
]
UNITS = [f"docs/deploy/sdxl-trt{kind}" for kind in (".service", "-pull.service", "-pull.timer")]
COMMAND = re.compile(
    r"^(?:    |#\s+|ExecStart(?:Post)?=\S*/)(?:docker run .*)?sdxl-trt (?P<rest>[a-z].*)$", re.MULTILINE
)


def shown(text: str) -> Iterator[str]:
    """Commands, without what follows as a comment; those with an ellipsis are not whole."""
    for found in COMMAND.finditer(text):
        command = found["rest"].split("   ")[0].removesuffix(" \\")
        if "…" not in command:
            yield command


def parse(arguments: list[str]) -> None:
    """What click does before a command runs, up to the last group's."""
    command: click.Command = cli
    while isinstance(command, click.Group):
        context = click.Context(command)
        name, command_found, arguments = command.resolve_command(context, arguments)
        assert command_found, name
        command = command_found
    command.make_parser(click.Context(command)).parse_args(list(arguments))


@pytest.mark.parametrize("document", [*DOCUMENTS, *UNITS])
def test_commands_in_documents(document: str) -> None:
    commands = list(shown((REPOSITORY / document).read_text(encoding="utf-8")))
    for command in commands:
        print(command)
        parse(shlex.split(command, comments=True))
    assert commands or document.endswith((".timer", "Dockerfile", "memory.md"))


@pytest.mark.parametrize(("file", "kind"), [("picture", "Job"), ("serve", "Deployment")])
def test_what_containers_run(file: str, kind: str) -> None:
    """They are given arguments, and no root."""
    documents = yaml.safe_load_all((REPOSITORY / f"docs/deploy/{file}.yaml").read_text(encoding="utf-8"))
    (found,) = (each for each in documents if each["kind"] == kind)
    pod = found["spec"]["template"]["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        parse(container["args"])
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert pod["securityContext"]["runAsNonRoot"]


def test_a_command_that_is_none_is_seen() -> None:
    for wrong in ("ship psuh BUNDLE", "run x --bundel y", "build --gpuu a"):
        with pytest.raises(click.UsageError):
            parse(wrong.split())
