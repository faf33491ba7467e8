"""A server for the tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from tests.integration.rpc import Running, running

from soundhash_server.embedded_valkey import Valkey


@pytest.fixture(scope="module")
async def server(
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Running]:
    """A running server on a fresh database; its tests share what is in it."""
    async for url in database_factory():
        async with running(url, valkey_server.url, tmp_path_factory.mktemp("data")) as made:
            yield made
