"""TLS and client certificates. The certificates in tests/tls are for tests and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from tests.integration.rpc import Callers

from soundhash_server.app import Server
from soundhash_server.embedded_valkey import Valkey
from soundhash_server.settings import Settings

TLS = Path(__file__).parent.parent / "tls"


def read(name: str) -> bytes:
    return (TLS / name).read_bytes()


async def ask(port: int, credentials: grpc.ChannelCredentials | None) -> int:
    address = f"127.0.0.1:{port}"
    if credentials is None:
        channel = grpc.aio.insecure_channel(address)
    else:
        channel = grpc.aio.secure_channel(address, credentials)
    async with channel:
        answer = await Callers(channel).health.Check(health_pb2.HealthCheckRequest(), timeout=2.0)
    return answer.status


@pytest.mark.parametrize("mutual", [False, True], ids=["server", "mutual"])
async def test_only_callers_with_the_right_certificates(
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    data_dir: Path,
    mutual: bool,
) -> None:
    plain = grpc.ssl_channel_credentials(read("ca.pem"))
    with_client = grpc.ssl_channel_credentials(
        read("ca.pem"), read("client.key"), read("client.pem")
    )
    async for url in database_factory():
        server = Server(
            Settings.from_env(
                {},
                database_url=url,
                redis_url=valkey_server.url,
                data_dir=data_dir,
                port=0,
                tls_cert=str(TLS / "server.pem"),
                tls_key=str(TLS / "server.key"),
                tls_client_ca=str(TLS / "ca.pem") if mutual else "",
            )
        )
        await server.start()
        try:
            await server.wait_ready()
            serving = health_pb2.HealthCheckResponse.SERVING
            assert await ask(server.port, with_client) == serving
            with pytest.raises(grpc.aio.AioRpcError):
                await ask(server.port, None)
            if mutual:
                with pytest.raises(grpc.aio.AioRpcError):
                    await ask(server.port, plain)
            else:
                assert await ask(server.port, plain) == serving
        finally:
            await server.stop()
