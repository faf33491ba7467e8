"""A TCP proxy that cuts connections, for tests of clients that come back."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_RESET = struct.pack("ii", 1, 0)  # linger for no time: the peer gets a reset, not an end


class CuttingProxy:
    """Passes bytes on to a port of this machine until it is told not to.

    target_port may be changed at any time; connections that are there stay where they are.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.address = ""
        self.connections = 0
        self.refuses = False
        """Whether new connections are cut at once."""
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> int:
        """Resets all connections; returns how many ends there were."""
        writers, self._writers = self._writers, set()
        for writer in writers:
            _reset(writer)
        return len(writers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refuses:
            _reset(writer)
            return
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            _reset(writer)
            return
        self._writers |= {writer, forth}
        await asyncio.gather(_pump(reader, forth), _pump(back, writer))
        self._writers -= {writer, forth}


@asynccontextmanager
async def cutting_proxy(target_port: int) -> AsyncIterator[CuttingProxy]:
    """A proxy on a free port of this machine."""
    proxy = CuttingProxy(target_port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await server.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
