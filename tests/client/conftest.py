"""Both clients, and servers that do what a test tells them."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hostile_registry import Hostile, hostile
from PIL import Image

from sdxl_trt.client import AsyncClient, Client

Ask = Callable[..., Any]


def ask_waiting(address: str, method: str, *arguments: Any, options: dict[str, Any] | None = None, **how: Any) -> Any:
    with Client(address, **(options or {})) as client:
        result = getattr(client, method)(*arguments, **how)
        return list(result) if method == "stream" else result


def ask_on_asyncio(
    address: str, method: str, *arguments: Any, options: dict[str, Any] | None = None, **how: Any
) -> Any:
    async def asked() -> Any:
        async with AsyncClient(address, **(options or {})) as client:
            result = getattr(client, method)(*arguments, **how)
            return [event async for event in result] if method == "stream" else await result

    return asyncio.run(asked())


@pytest.fixture(params=[ask_waiting, ask_on_asyncio], ids=["Client", "AsyncClient"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """What a method of a client gives: `ask(address, method, …)`; of a stream all events."""
    asked: Ask = request.param
    return asked


@pytest.fixture
def server() -> Iterator[Hostile]:
    """One that does what the test tells it."""
    with hostile() as state:
        yield state


@pytest.fixture(scope="session")
def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()
