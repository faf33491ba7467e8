"""Both clients against a server that answers as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.scripted import Caller, ScriptedServer, scripted_server


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A real gRPC server without answers yet."""
    with scripted_server() as server:
        yield server


@pytest.fixture(params=["plain", "asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which client."""
    return str(request.param)


@pytest.fixture
async def call(kind: str, scripted: ScriptedServer) -> AsyncIterator[Caller]:
    """A client of the scripted server."""
    caller = Caller(kind, scripted.address, timeout_s=10.0)
    yield caller
    await caller.close()


@pytest.fixture
async def caller_for(kind: str, scripted: ScriptedServer) -> AsyncIterator[Any]:
    """Makes clients of the scripted server with other options."""
    made: list[Caller] = []

    def make(address: str = "", **options: Any) -> Caller:
        made.append(Caller(kind, address or scripted.address, **options))
        return made[-1]

    yield make
    for caller in made:
        await caller.close()
